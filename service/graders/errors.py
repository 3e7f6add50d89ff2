"""Errors of graders."""

from __future__ import annotations

from service.kit.errors import InvalidRequest, ServiceError


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
