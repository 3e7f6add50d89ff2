"""Errors of graders."""

from __future__ import annotations

from service.kit.errors import InvalidRequest, ServiceError


class PythonGradersOff(InvalidRequest):
    """The operator has not switched Python graders on."""

    code = "python_graders_off"

    def __init__(self, param: str) -> None:
        super().__init__(
            "Python graders are switched off here: the service's operator allows them by BURNISH_PYTHON_GRADERS=on. "
            "Use string_check, text_similarity or score_model, alone or in a multi.",
            param=param,
        )


class SourceRefused(InvalidRequest):
    """The source of a Python grader cannot be run."""

    code = "invalid_python_grader"


class GradersBusy(ServiceError):
    """As many graders wait as the service takes."""

    status = 429
    type = "rate_limit_error"
    code = "graders_overloaded"

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} graders wait already. Try again in a few seconds.")
        self.headers = {"Retry-After": "2"}
