"""What the wire shows of jobs, and what a creation may say."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from service.jobs.integrations import Integrations, WandbIntegration
from service.jobs.model_names import compose_checkpoint_name
from service.jobs.parents import shown_waits
from service.jobs.resources import Resources
from service.jobs.states import WIRE_STATUS
from service.kit.expiry import ExpiresAfter
from service.kit.members import LEFT_OUT_IF_NULL
from service.tables.jobs import JobCheckpointRow, JobEventRow, JobRow, JobState
from service.tables.models import AdapterDownload
from trainer.contract.job import Budget, LineageEntry
from trainer.contract.methods.base import LoraParameters

MAX_METADATA = 16
"""The most pairs of a job's metadata."""
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_SUFFIX = r"[A-Za-z0-9][A-Za-z0-9._-]*"


def _make_name_part(suffix: str) -> str:
    """Return a suffix as it stands in the model's name: spaces become hyphens, as OpenAI's do. Raises ValueError."""
    part = re.sub(" +", "-", suffix.strip(" "))
    if re.fullmatch(_SUFFIX, part) is None:
        raise ValueError(
            f"'{suffix}' cannot be part of the model's name: use letters (A to Z, a to z), digits, . _ - and spaces, "
            f"which become hyphens, with a letter or a digit first ({_SUFFIX}), such as 'support-desk.v2'"
        )
    return part


Suffix = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        description="Becomes part of the model's name, with hyphens for spaces.",
        json_schema_extra={"pattern": "^ *[A-Za-z0-9][A-Za-z0-9._ -]*$"},
    ),
    AfterValidator(_make_name_part),
]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]

PRIORITIES = {"low": -10, "normal": 0, "high": 10}


def _as_number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in PRIORITIES:
        raise ValueError(f"must be {', '.join(PRIORITIES)}, or a number from -100 to 100")
    return PRIORITIES[value]


_InRange = Annotated[int, Field(ge=-100, le=100, strict=True)]
Priority = Annotated[
    _InRange, BeforeValidator(_as_number, json_schema_input_type=_InRange | Literal["low", "normal", "high"])
]


class JobExpiry(BaseModel):
    """How long what a job leaves is kept, counted from when each was made."""

    model_config = ConfigDict(extra="forbid")

    checkpoints: ExpiresAfter | None = None
    artifacts: ExpiresAfter | None = Field(
        None, description="The model, its archive, the report and the result file, all at once."
    )


class JobCreate(BaseModel):
    """The body of a creation. Blocks of `method` that its `type` does not select are ignored, as OpenAI does."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=256, examples=["smollm2-135m-instruct"])
    training_file: str = Field(min_length=1, max_length=64, examples=["file-abc123"])
    validation_file: str | None = Field(None, min_length=1, max_length=64)
    method: dict[str, Any] | None = Field(
        None,
        description="`{type, <type>: {hyperparameters}}`",
        examples=[{"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}}],
    )
    hyperparameters: dict[str, Any] | None = Field(None, json_schema_extra={"deprecated": True})
    suffix: Suffix | None = None
    seed: int | None = Field(None, ge=0, le=2147483647, strict=True)
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA)] | None = None
    integrations: Integrations | None = Field(
        None, description="Where the job's metrics are sent besides its events; each names another project."
    )
    lora: LoraParameters | None = Field(
        None, description="The adapter's shape: the same as `lora` among the method's hyperparameters."
    )
    priority: Priority | None = Field(
        None,
        description="-100 to 100, or low (-10), normal (0), high (10): which of its project's jobs starts first.",
    )
    timeout: Annotated[int, Field(ge=1, le=365 * 86400, strict=True)] | None = Field(
        None, description="Seconds that the job may run, all attempts together; then it fails with the code timeout."
    )
    budget: Budget | None = Field(
        None, description="What the training may use up; then it ends in order, with a model."
    )
    resources: Resources | None = Field(None, description="What the worker must have.")
    expires_after: JobExpiry | None = Field(None, description="When checkpoints and results are deleted.")
    keep_checkpoints: int | None = Field(
        None, ge=1, le=1000, strict=True, description="Keep the last so many checkpoints, and the best one."
    )


class JobDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    deleted: Literal[True] = True


class JobErrorObject(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class JobHyperparameters(BaseModel):
    """The three hyperparameters that OpenAI's job object shows at its top."""

    n_epochs: Literal["auto"] | int
    batch_size: Literal["auto"] | int
    learning_rate_multiplier: Literal["auto"] | float


class JobQueueObject(BaseModel):
    """Why a job does not run yet. `position` counts from 1 among the queued jobs that wait for a worker alone."""

    position: int | None
    reason: Literal[
        "validating",
        "paused",
        "waits_for_jobs",
        "project_limit",
        "retrying",
        "no_worker",
        "no_fitting_worker",
        "workers_busy",
    ]
    message: str


class JobObject(BaseModel):
    """OpenAI's job object; its own members
    are `phase`, `pause_requested`, `attempt`, `failures`, `crashes`, `preemptions`, `started_at`, `running_seconds`,
    `base_model`, `lineage`, `waits_for`, `queue`, `held_by`, `lora`, `priority`, `timeout`, `budget`, `resources`,
    `ended_by`, `expires_after`, `keep_checkpoints` and `adapter_download`.
    """

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    started_at: int | None
    finished_at: int | None
    estimated_finish: int | None
    model: str
    base_model: str
    fine_tuned_model: str | None
    organization_id: str
    status: Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
    phase: JobState
    pause_requested: bool
    attempt: int
    failures: int = Field(0, description="Attempts that ended with an error of the trainer or the worker.")
    crashes: int = Field(0, description="Attempts in a row that just ended, none of which kept a newer checkpoint.")
    preemptions: int = Field(0, description="Attempts that ended because their worker was stopped.")
    error: JobErrorObject | None
    hyperparameters: JobHyperparameters
    method: dict[str, Any]
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    seed: int
    suffix: str | None
    metadata: dict[str, str] | None
    integrations: list[WandbIntegration] = []
    lineage: list[LineageEntry]
    waits_for: list[str]
    held_by: Literal["running_jobs", "training_minutes"] | None = Field(
        None, description="The limit of its project for which the queued job does not start."
    )
    queue: JobQueueObject | None = Field(None, description="Why the job does not run yet; null once it has started.")
    lora: LoraParameters | Literal["auto"] | None = Field(
        None, description="The adapter's shape, in numbers once the training began; null where all weights are trained."
    )
    priority: int = 0
    timeout: int | None = None
    budget: Budget | None = None
    resources: Resources | None = None
    running_seconds: float = Field(0.0, description="How long the attempts that are over ran, together.")
    ended_by: Literal["budget"] | None = Field(None, description="What ended the training before its last epoch.")
    expires_after: JobExpiry | None = None
    keep_checkpoints: int | None = None
    adapter_download: AdapterDownload = Field(
        "allowed",
        description="`blocked`: its weights go back to a model that another project shared so; chats and further jobs "
        "may use them, downloads and exports are refused.",
    )

    @classmethod
    def from_row(cls, job: JobRow, organization: str, queue: JobQueueObject | None = None) -> JobObject:
        """Show a row, with the resolved hyperparameters once the trainer has them."""
        kind: str = job.method["type"]
        hyperparameters: dict[str, Any] = job.resolved or job.method[kind]["hyperparameters"]
        return cls(
            id=job.id,
            created_at=int(job.created_at),
            started_at=_whole_seconds(job.started_at),
            finished_at=_whole_seconds(job.finished_at),
            estimated_finish=_whole_seconds(job.estimated_finish),
            model=job.model,
            base_model=job.base,
            fine_tuned_model=job.fine_tuned_model,
            organization_id=organization,
            status=WIRE_STATUS[JobState(job.state)],  # type: ignore[arg-type] - the table is complete by a test
            phase=JobState(job.state),
            pause_requested=job.pause_requested,
            attempt=job.lease_token,
            failures=job.failures,
            crashes=job.crashes,
            preemptions=job.preemptions,
            error=None if job.error is None else JobErrorObject(**job.error),
            hyperparameters=JobHyperparameters.model_validate(hyperparameters),
            method={"type": kind, kind: {**job.method[kind], "hyperparameters": hyperparameters}},
            training_file=job.training_file,
            validation_file=job.validation_file,
            result_files=[job.result_file] if job.result_file else [],
            trained_tokens=job.trained_tokens,
            seed=job.seed,
            suffix=job.suffix,
            metadata=job.user_metadata,
            integrations=[WandbIntegration.model_validate(item) for item in job.integrations or ()],
            lineage=[LineageEntry.model_validate(entry) for entry in job.lineage],
            waits_for=shown_waits(job),
            adapter_download=job.adapter_download,
            held_by=job.held_by,  # type: ignore[arg-type] - `limits.service.HoldReason`
            queue=queue,
            lora=None if hyperparameters.get("weights") == "full" else hyperparameters.get("lora"),
            priority=job.priority,
            timeout=job.timeout_seconds,
            budget=None if job.budget is None else Budget.model_validate(job.budget),
            resources=None if job.resources is None else Resources.model_validate(job.resources),
            running_seconds=round(job.running_seconds, 3),
            ended_by=job.ended_by,  # type: ignore[arg-type] - the trainer's own word
            expires_after=None if job.expires_after is None else JobExpiry.model_validate(job.expires_after),
            keep_checkpoints=job.keep_checkpoints,
        )


class JobEventObject(BaseModel):
    """One event of a job, in OpenAI's form."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: Annotated[dict[str, Any] | None, LEFT_OUT_IF_NULL] = None

    @classmethod
    def from_row(cls, event: JobEventRow) -> JobEventObject:
        return cls.model_validate(
            {
                "id": event.id,
                "created_at": int(event.created_at),
                "level": event.level,
                "message": event.message,
                "type": event.type,
                "data": event.data,
            }
        )


class CheckpointObject(BaseModel):
    """One checkpoint of a job, in OpenAI's form."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, float]
    expires_at: Annotated[int | None, LEFT_OUT_IF_NULL] = None

    @classmethod
    def from_row(cls, checkpoint: JobCheckpointRow, model_name: str) -> CheckpointObject:
        """Show a row; `model_name` is that of the job's model."""
        return cls(
            id=checkpoint.id,
            created_at=int(checkpoint.created_at),
            fine_tuned_model_checkpoint=compose_checkpoint_name(model_name, checkpoint.step),
            fine_tuning_job_id=checkpoint.job_id,
            step_number=checkpoint.step,
            metrics={"step": float(checkpoint.step), **checkpoint.metrics},
            expires_at=_whole_seconds(checkpoint.expires_at),
        )


def _whole_seconds(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
