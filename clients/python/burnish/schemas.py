"""The objects of the wire. Fields that this version does not know are kept: a newer server does no harm."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")

JobStatus = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class WireModel(BaseModel):
    """Base of all objects: immutable, and tolerant of unknown fields, which it keeps."""

    # Built at the first use: a command needs few of them.
    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=(), defer_build=True)


class File(WireModel):
    """An uploaded or resulting file; `bytes` is its size, `created_at` in seconds since 1970."""

    id: str
    object: str = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str = "uploaded"
    expires_at: int | None = None
    status_details: str | None = None


class Deleted(WireModel):
    """The answer to a deletion."""

    id: str
    object: str
    deleted: bool


class JobError(WireModel):
    """Why a job failed; `param` names the request's field at fault, if there is one."""

    code: str | None = None
    message: str
    param: str | None = None


class Project(WireModel):
    """Owns objects; its keys see nothing of another's."""

    id: str
    object: str = "organization.project"
    name: str
    created_at: int


class ApiKey(WireModel):
    """A key of a project. `value`, the key itself, is only in the answer to its creation."""

    id: str
    object: str = "organization.project.api_key"
    name: str
    redacted_value: str
    created_at: int
    last_used_at: int | None = None
    scopes: list[str] = Field(default_factory=list[str])
    expires_at: int | None = None
    revoked_at: int | None = None
    value: str | None = Field(None, repr=False)


class Limit(WireModel):
    """What a project may use of something (`limit` None: as much as it likes), and what it uses if that is counted.

    `source` is `project` if an administrator set it, else `default`.
    """

    limit: int | None = None
    source: str = "default"
    used: float | None = None
    resets_at: int | None = None


class ProjectLimits(WireModel):
    """All limits of a project."""

    object: str = "organization.project.limits"
    project_id: str
    stored_bytes: Limit
    running_jobs: Limit
    queued_jobs: Limit
    training_minutes: Limit
    requests_per_minute: Limit
    tokens_per_minute: Limit


class AuditLog(WireModel):
    """Something that was changed, or refused. `actor` is None for what the service did of its own accord.

    `count` is above 1 for refused calls of one kind that came within a minute, of which the last is shown.
    """

    id: str
    type: str
    effective_at: int
    actor: dict[str, Any] | None = None
    project: dict[str, Any] | None = None
    outcome: str = "succeeded"
    status_code: int | None = None
    object_id: str | None = None
    request_id: str | None = None
    ip_address: str | None = None
    count: int = 1

    @property
    def who(self) -> str:
        """The key's id, the operator's name, or `service`."""
        actor = self.actor or {}
        key, session = actor.get("api_key"), actor.get("session")
        return str(key["id"] if key else session["user"]["id"] if session else "service")


class UploadPart(WireModel):
    """A part of an upload that the server has."""

    id: str
    object: str = "upload.part"
    created_at: int
    upload_id: str
    bytes: int
    sha256: str


class UploadState(WireModel):
    """A file that comes in parts. Only `uploads.retrieve` returns `parts`."""

    id: str
    object: str = "upload"
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    bytes: int
    status: str
    file: File | None = None
    parts: list[UploadPart] = Field(default_factory=list[UploadPart])


class JobQueue(WireModel):
    """Why a job does not run yet; `position` counts from 1."""

    position: int | None = None
    reason: str
    message: str


class Job(WireModel):
    """A fine-tuning job. `phase` says more than `status`: it can be `paused`."""

    id: str
    object: str = "fine_tuning.job"
    created_at: int
    status: JobStatus | str
    phase: str | None = None
    pause_requested: bool = False
    model: str
    training_file: str
    validation_file: str | None = None
    fine_tuned_model: str | None = None
    finished_at: int | None = None
    estimated_finish: int | None = None
    error: JobError | None = None
    hyperparameters: dict[str, Any] | None = None
    method: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    integrations: list[dict[str, Any]] | None = None
    organization_id: str | None = None
    result_files: list[str] = Field(default_factory=list)
    seed: int | None = None
    trained_tokens: int | None = None
    base_model: str | None = None
    lineage: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    waits_for: list[str] = Field(default_factory=list)
    queue: JobQueue | None = None
    lora: dict[str, Any] | Literal["auto"] | None = None
    priority: int = 0
    timeout: int | None = None
    budget: dict[str, Any] | None = None
    resources: dict[str, Any] | None = None
    failures: int = 0
    crashes: int = 0
    preemptions: int = 0
    running_seconds: float = 0.0
    ended_by: str | None = None
    expires_after: dict[str, Any] | None = None
    keep_checkpoints: int | None = None
    held_by: str | None = None
    adapter_download: str = "allowed"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.status in TERMINAL


class JobEvent(WireModel):
    """Something that happened in a job; `data` holds the numbers of a `metrics` event."""

    id: str
    object: str = "fine_tuning.job.event"
    created_at: int
    level: str = "info"
    message: str
    type: str | None = None
    data: dict[str, Any] | None = None


class Checkpoint(WireModel):
    """A model saved on the way, after `step_number` optimizer steps."""

    id: str
    object: str = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, Any] = Field(default_factory=dict)
    expires_at: int | None = None


class Model(WireModel):
    """A base model, or the outcome of a job (`ft:…`)."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = ""
    expires_at: int | None = None


class ModelExport(WireModel):
    """A model in another format. `bytes` and `sha256` are there once its `status` is `ready`."""

    id: str
    object: str = "model.export"
    model: str
    fine_tuning_job_id: str | None = None
    format: str
    precision: str | None = None
    status: Literal["queued", "running", "ready", "failed"] | str
    filename: str
    bytes: int | None = None
    sha256: str | None = None
    created_at: int
    finished_at: int | None = None
    expires_at: int | None = None
    error: JobError | None = None
    verification: dict[str, Any] | None = None


class PageData(WireModel, Generic[T]):
    """One page of a list as the server sent it."""

    object: str = "list"
    data: list[T]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


class WebhookEndpoint(WireModel):
    """A receiver of webhooks. `signing_secret` is there only in the answer to its creation or rotation."""

    id: str
    object: str = "webhook_endpoint"
    name: str
    url: str
    event_types: list[str]
    created_at: int
    updated_at: int | None = None
    signing_secret_hint: str | None = None
    signing_secret: str | None = Field(None, repr=False)
    enabled: bool = True
    disabled_at: int | None = None
    disabled_reason: str | None = None
    failing_since: int | None = None


class WebhookTest(WireModel):
    """What a test came to: `status_code` is the receiver's answer."""

    object: str = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: bool


class WebhookDelivery(WireModel):
    """One try to deliver one event; `status_code` is None if no answer came, `error` if it succeeded."""

    id: str
    object: str = "webhook_endpoint.delivery"
    webhook_endpoint_id: str
    event_id: str
    event_type: str
    url: str
    created_at: int
    status_code: int | None = None
    success: bool
    error: str | None = None
    duration_ms: int


class WebhookReplay(WireModel):
    """The events that are on their way again."""

    object: str = "webhook_endpoint.replay"
    webhook_endpoint_id: str
    event_ids: list[str]


class WebhookEventTypes(WireModel):
    """The events that endpoints can subscribe to."""

    object: str = "list"
    data: list[str]


class WebhookEvent(WireModel):
    """The body of a webhook; `data["id"]` names the job."""

    id: str
    object: str = "event"
    type: str
    created_at: int
    data: dict[str, Any]
