"""Burnish: fine-tune language models on a server of your own, from Python or by the `burnish` command.

from burnish import Burnish

with Burnish() as client:
    file = client.files.create(file="rows.jsonl", purpose="fine-tune")
    job = client.jobs.create(model="smollm2-135m-instruct", training_file=file.id)
    job = client.jobs.wait(job.id)
    client.jobs.download_adapter(job.id, "adapter", extract=True)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from burnish._version import __version__

if TYPE_CHECKING:
    from burnish.client import AsyncBurnish, Burnish
    from burnish.errors import (
        APIConnectionError,
        APIError,
        APIResponseError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        BurnishError,
        ConfigurationError,
        ConflictError,
        DownloadBusy,
        DownloadCorrupt,
        ExportFailed,
        InternalServerError,
        JobFailed,
        NotFoundError,
        PermissionDeniedError,
        Problem,
        RateLimitError,
        UploadError,
        UploadInterrupted,
        WaitTimeoutError,
        WebhookVerificationError,
    )
    from burnish.grader_schemas import GraderRun
    from burnish.job_arguments import CreateJob, Hyperparameters
    from burnish.preview_schemas import JobPreview
    from burnish.schemas import (
        Checkpoint,
        File,
        Job,
        JobError,
        JobEvent,
        Model,
        ModelExport,
        WebhookDelivery,
        WebhookEndpoint,
        WebhookEvent,
        WebhookReplay,
        WebhookTest,
    )

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncBurnish",
    "AuthenticationError",
    "BadRequestError",
    "Burnish",
    "BurnishError",
    "Checkpoint",
    "ConfigurationError",
    "ConflictError",
    "CreateJob",
    "DownloadBusy",
    "DownloadCorrupt",
    "ExportFailed",
    "File",
    "GraderRun",
    "Hyperparameters",
    "InternalServerError",
    "Job",
    "JobError",
    "JobEvent",
    "JobFailed",
    "JobPreview",
    "Model",
    "ModelExport",
    "NotFoundError",
    "PermissionDeniedError",
    "Problem",
    "RateLimitError",
    "UploadError",
    "UploadInterrupted",
    "WaitTimeoutError",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookEvent",
    "WebhookReplay",
    "WebhookTest",
    "WebhookVerificationError",
    "__version__",
]

_HOMES = (
    "burnish.errors",
    "burnish.job_arguments",
    "burnish.schemas",
    "burnish.preview_schemas",
    "burnish.grader_schemas",
    "burnish.client",
)
"""Where the names above are, the quickest to load first."""


def __getattr__(name: str) -> object:
    """Load a name at its first use: `import burnish` and `burnish --help` need no HTTP client."""
    if name in __all__:
        for home in map(import_module, _HOMES):
            if name in vars(home):
                globals()[name] = vars(home)[name]
                return vars(home)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
