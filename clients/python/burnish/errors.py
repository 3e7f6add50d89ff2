"""What can go wrong, as one tree:

BurnishError
├── ConfigurationError          no address or no key was found, or they are malformed
├── APIError
│   ├── APIConnectionError      no answer came
│   │   └── APITimeoutError     no answer came in time
│   ├── APIResponseError        an answer came that this client cannot read
│   └── APIStatusError          the server refused
│       ├── BadRequestError           400, 413, 415, 422
│       ├── AuthenticationError       401
│       ├── PermissionDeniedError     403
│       ├── NotFoundError             404
│       ├── ConflictError             409
│       ├── RateLimitError            429
│       └── InternalServerError       500 and above
├── JobFailed                   a job ended without a model
├── ExportFailed                a model could not be exported
├── WaitTimeoutError            a job or an export did not end in the time given
├── DownloadCorrupt             a download is not what the server said it is
├── DownloadBusy                another process writes the same download
├── UploadError                 a file cannot be sent as it is
│   └── UploadInterrupted       the upload of a large file was interrupted and can be resumed
└── WebhookVerificationError    a webhook was not signed with this secret
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    import httpx

    from burnish.schemas import Job, ModelExport


class Problem(NamedTuple):
    """One fault of a dataset: the line (from 1; None if it concerns the whole file) and a sentence."""

    line: int | None
    reason: str


class BurnishError(Exception):
    """Anything that this package raises on its own account; `message` is one sentence for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigurationError(BurnishError):
    """The server's address or the API key is missing or malformed."""


class APIError(BurnishError):
    """A request got no usable answer. `request_id` is the server's name for it, if it gave one."""

    request_id: str | None = None


class APIConnectionError(APIError):
    """The server could not be reached, or the connection broke."""


class APITimeoutError(APIConnectionError):
    """The server did not answer in time."""


class APIResponseError(APIError):
    """The answer is not what this API gives; often something else listens at the address."""

    def __init__(self, message: str, *, response: httpx.Response) -> None:
        super().__init__(message)
        self.request_id = response.headers.get("x-request-id")


class APIStatusError(APIError):
    """The server refused: `status_code`, and the error object's `type`, `code`, `param` and `problems`."""

    def __init__(self, *, response: httpx.Response) -> None:
        error = _error_object(response)
        super().__init__(str(error.get("message") or _describe_response(response)))
        self.response = response
        self.status_code = response.status_code
        self.request_id = response.headers.get("x-request-id")
        self.type: str | None = error.get("type")
        self.code: str | None = error.get("code")
        self.param: str | None = error.get("param")
        self.problems: tuple[Problem, ...] = _parse_problems(error.get("problems"))


class BadRequestError(APIStatusError):
    """The request itself is at fault."""


class AuthenticationError(APIStatusError):
    """The API key is missing, unknown or revoked."""


class PermissionDeniedError(APIStatusError):
    """The API key may not do this."""


class NotFoundError(APIStatusError):
    """There is no such thing, or this key cannot see it."""


class ConflictError(APIStatusError):
    """The thing is in a state that does not allow this."""


class RateLimitError(APIStatusError):
    """Too many requests, or a quota is used up."""


class InternalServerError(APIStatusError):
    """The server is at fault, or not able to answer now."""


class JobFailed(BurnishError):
    """A job failed or was cancelled; `job` is its last state, `job.error` the reason."""

    def __init__(self, *, job: Job) -> None:
        if job.error is not None:
            message = f"Job {job.id} {job.status}: {job.error.message}"
        elif job.status == "cancelled":
            message = f"Job {job.id} was cancelled."
        else:
            message = f"Job {job.id} {job.status}; the server gave no reason."
        super().__init__(message)
        self.job = job


class ExportFailed(BurnishError):
    """An export failed; `export` is its last state, `export.error` the reason."""

    def __init__(self, *, export: ModelExport) -> None:
        reason = export.error.message if export.error else "the server gave no reason."
        super().__init__(f"The export {export.id} of {export.model} failed: {reason}")
        self.export = export


class WaitTimeoutError(BurnishError):
    """A job, or an export, had not ended when the time given to `wait` was over; it still runs."""


class DownloadCorrupt(BurnishError):
    """A download's bytes differ from their stated hash, or an archive is unsafe; nothing was left on disk."""


class DownloadBusy(BurnishError):
    """Another process, or another task of this one, downloads to the same place."""


class UploadError(BurnishError):
    """A file changed or could not be read while it was sent."""


class UploadInterrupted(UploadError):
    """An upload in parts was interrupted; the server keeps its parts for an hour under `upload_id`."""

    def __init__(self, upload_id: str, filename: str, cause: APIError) -> None:
        super().__init__(
            f"The upload of {filename} was interrupted ({cause}) What has arrived is kept for an hour: resume it by "
            f"client.uploads.send('{upload_id}', file=…) or `burnish files upload {filename} --resume {upload_id}`."
        )
        self.upload_id = upload_id


class WebhookVerificationError(BurnishError):
    """A webhook's signature, time or body is not acceptable."""


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: BadRequestError,
    415: BadRequestError,
    422: BadRequestError,
    429: RateLimitError,
}


def from_response(response: httpx.Response) -> APIStatusError:
    """Return the error that a refusal stands for; its body has been read."""
    default = InternalServerError if response.status_code >= 500 else APIStatusError
    return _BY_STATUS.get(response.status_code, default)(response=response)


def from_exception(error: httpx.RequestError, base_url: str) -> APIConnectionError:
    """Return the error that a request without an answer stands for."""
    import httpx  # here, because the command line needs the errors before it needs a connection

    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException):
        return APITimeoutError(f"{base_url} did not answer in time ({type(error).__name__}).")
    if isinstance(error, httpx.ConnectError):
        return APIConnectionError(f"Cannot reach {base_url}: {reason}. Is the server running there?")
    return APIConnectionError(f"The connection to {base_url} broke: {reason}.")


def _error_object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    error = cast("dict[str, Any]", body).get("error") if isinstance(body, dict) else None
    return cast("dict[str, Any]", error) if isinstance(error, dict) else {}


def _describe_response(response: httpx.Response) -> str:
    sentence = f"{response.request.url.copy_with(query=None)} answered {response.status_code}"
    if response.is_redirect:
        return f"{sentence}: moved to {response.headers.get('location')}; use that address as base_url."
    return f"{sentence} {response.reason_phrase} without an error object; is this Burnish's address?"


def _parse_problems(value: object) -> tuple[Problem, ...]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    rows = [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
    return tuple(Problem(row.get("line"), str(row.get("reason", ""))) for row in rows)
