"""Burnish: fine-tune language models on a server of your own, from Python or by the `burnish` command.

from burnish import Burnish

with Burnish() as client:
    file = client.files.create(file="rows.jsonl", purpose="fine-tune")
    job = client.jobs.create(model="smollm2-135m-instruct", training_file=file.id)
    job = client.jobs.wait(job.id)
    client.jobs.download_adapter(job.id, "adapter", extract=True)
"""

from burnish.client import AsyncBurnish, Burnish, __version__
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
from burnish.preview_schemas import JobPreview
from burnish.schemas import (
    Checkpoint,
    File,
    Hyperparameters,
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
