"""The root of the service's errors: a status, a stable code and a sentence. Only `api/errors.py` renders them.

ServiceError
├── InvalidRequest      400  the caller's input; `param` names the field
├── Unauthenticated     401  no key, or one that is unknown, revoked or expired
├── PermissionDenied    403  the key may not do that
├── NotFound            404  absent, or another project's
├── Conflict            409  the object's state forbids it; not worth a retry
├── TooLarge            413  the body is over a stated limit
├── RangeNotSatisfiable 416  a range of a download lies outside it
└── Unavailable         503  a part of ours does not answer; worth a retry
    └── NoSpace         507  the disk or the bucket is full
"""

from __future__ import annotations

from typing import Any


class ServiceError(Exception):
    """An error that a user sees, in OpenAI's shape: message, type, param, code."""

    status = 500
    type = "server_error"
    code: str | None = None
    retry = True
    shown: str | None = None
    """What a caller of the API gets instead of the message."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.headers: dict[str, str] = {}
        """Further headers of the answer."""
        self.extra = extra or {}
        """Further members of the error object, for example `problems` of a dataset."""

    def error_body(self) -> dict[str, Any]:
        """Return what a caller of the API gets."""
        error_fields = {
            "message": self.shown or self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error_fields | self.extra}


class InvalidRequest(ServiceError):
    """The request is wrong; the same one will be wrong again."""

    status = 400
    type = "invalid_request_error"
    retry = False


class Unauthenticated(ServiceError):
    """There is no valid API key."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"
    retry = False


class PermissionDenied(ServiceError):
    """The key is good, but lacks the scope."""

    status = 403
    type = "invalid_request_error"
    code = "insufficient_permissions"
    retry = False


class NotFound(ServiceError):
    """The object does not exist for this project; whether another project has it is not said."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"
    retry = False


class Conflict(ServiceError):
    """The object's state does not allow the operation."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"
    retry = False


class TooLarge(ServiceError):
    """The body is larger than the service accepts."""

    status = 413
    type = "invalid_request_error"
    code = "too_large"
    retry = False


class RangeNotSatisfiable(ServiceError):
    """The requested range has no byte of the download."""

    status = 416
    type = "invalid_request_error"
    code = "range_not_satisfiable"
    retry = False

    def __init__(self, size: int) -> None:
        super().__init__(f"The range lies outside the download, which has {size} bytes.", param="Range")
        self.headers = {"Content-Range": f"bytes */{size}"}


class Unavailable(ServiceError):
    """SQL, the queue or the blob store does not answer. The message is for the operator: it names addresses."""

    status = 503
    code = "unavailable"
    shown = "A part of the service does not answer at the moment. Try again in a few seconds."


class NoSpace(Unavailable):
    """The blob store has no room left."""

    shown = None
    status = 507
    code = "insufficient_storage"
    retry = False
