"""Errors of graders: refused sources, too many at once, and Python that cannot run here."""

from __future__ import annotations

from service.kit.errors import InvalidRequest, ServiceError


class SourceRefused(InvalidRequest):
    """The source of a Python grader cannot be run."""

    code = "invalid_python_grader"


class GradersOverloaded(ServiceError):
    """Graders have more requests than they can serve now."""

    status = 429
    type = "rate_limit_error"
    code = "graders_overloaded"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": "2"}


class GradersBusy(GradersOverloaded):
    """As many gradings of the project wait as may."""

    def __init__(self, waiting: int) -> None:
        super().__init__(
            f"{waiting} gradings of this project wait already, the most that may. Wait for some of them to end, or try "
            "again in a few seconds."
        )


class PythonGradersBusy(GradersOverloaded):
    """As many Python graders run as the machine takes."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"As many Python graders run as may, and none has ended for this request in {seconds:g} seconds. Try again "
            "in a few seconds."
        )


class PythonGradersUnavailable(ServiceError):
    """The machine cannot run Python graders."""

    status = 503
    code = "python_graders_unavailable"
