"""Jobs with their events, checkpoints and artifacts."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Double, ForeignKey, Index, Integer, String, Text, UniqueConstraint, and_, literal
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, Json, db_now
from service.tables.models import AdapterDownload


# `jobs.states` has the changes that are legal.
class JobState(StrEnum):
    """Where a job stands."""

    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobRow(Base):
    """One fine-tuning job: what was asked, where it stands, who holds its lease."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_project_seq", "project_id", "seq"),
        Index("ix_jobs_state", "state", "seq"),
    )

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[float] = mapped_column(Double, default=db_now())

    model: Mapped[str] = mapped_column(String(255))
    """The model to start from as it was asked for."""
    base: Mapped[str] = mapped_column(String(255))
    """The base that the result is relative to: the catalog's, or `ft:…` where a job trained all weights."""
    start_job: Mapped[str | None] = mapped_column(String(40))
    """The job whose result, or whose checkpoint at `start_step`, this one goes on from."""
    start_step: Mapped[int | None] = mapped_column(Integer)
    reward_job: Mapped[str | None] = mapped_column(String(40))
    """The job whose reward model, or whose checkpoint at `reward_step`, this one asks."""
    reward_step: Mapped[int | None] = mapped_column(Integer)
    foreign_parents: Mapped[str | None] = mapped_column(String(128))
    """Those of `start_job` and `reward_job` that belong to other projects, with spaces between: this one does not
    learn their ids."""
    adapter_download: Mapped[AdapterDownload] = mapped_column(String(8), default="allowed")
    """Whether its project may download what it leaves: not if its weights go back to a model shared without that."""
    waits_for: Mapped[str | None] = mapped_column(String(128))
    """The ids of the jobs that must have succeeded first, with spaces between; null once there are none."""
    lineage: Mapped[list[dict[str, Any]]] = mapped_column(Json, default=list)
    """The jobs that the start model came from, the oldest first: `trainer.contract.job.LineageEntry`.

    It begins anew with a model of another project, of which it has the shared name alone.
    """
    method: Mapped[dict[str, Any]] = mapped_column(Json)
    resolved: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """The hyperparameters as the trainer resolved them; null until it has."""
    training_file: Mapped[str] = mapped_column(String(40))
    validation_file: Mapped[str | None] = mapped_column(String(40))
    training_sha256: Mapped[str | None] = mapped_column(String(64))
    validation_sha256: Mapped[str | None] = mapped_column(String(64))
    suffix: Mapped[str | None] = mapped_column(String(64))
    seed: Mapped[int] = mapped_column(Integer)
    user_metadata: Mapped[dict[str, str] | None] = mapped_column("metadata", Json)
    """What the wire shows; `JobMetadataRow` has the same for the search."""
    expires_after: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """How long checkpoints and results are kept: `jobs.schemas.JobExpiry`."""
    keep_checkpoints: Mapped[int | None] = mapped_column(Integer, index=True)
    integrations: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    """Where its metrics go beside its events: `jobs.integrations.Integrations`; null if nowhere."""

    priority: Mapped[int] = mapped_column(Integer, default=0)
    """Of a project's queued jobs that a worker can run, it takes one of the highest priority, of these the oldest."""
    timeout_seconds: Mapped[int | None] = mapped_column(Integer)
    """How long the job may run, all attempts together."""
    budget: Mapped[dict[str, Any] | None] = mapped_column(Json)
    resources: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """What a worker must have: `jobs.resources.Resources`."""
    model_name: Mapped[str] = mapped_column(String(255), index=True)
    """The name of the model that it makes: settled at its creation, so that no setting renames a model."""

    state: Mapped[str] = mapped_column(String(16))
    queued_at: Mapped[float | None] = mapped_column(Double)
    """When it was last queued."""
    traceparent: Mapped[str | None] = mapped_column(String(55))
    """The span that created it (W3C), where traces are kept: what happens to it later belongs to the same trace."""
    pause_requested: Mapped[bool] = mapped_column(default=False)
    """Whether the job is to be `paused` at its next stand-still: once validated, or once its worker has let go."""
    held_by: Mapped[str | None] = mapped_column(String(32))
    """The limit of its project for which a queued job does not start: `limits.service.HoldReason`."""
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    started_at: Mapped[float | None] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)
    running_seconds: Mapped[float] = mapped_column(Double, default=0.0)
    """How long the attempts that are over ran, together."""
    estimated_finish: Mapped[float | None] = mapped_column(Double)
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    train_seconds: Mapped[float | None] = mapped_column(Double)
    """What the training steps alone took, of a job that succeeded."""
    ended_by: Mapped[str | None] = mapped_column(String(16))
    """What ended the training before its time; null if nothing did."""
    result_file: Mapped[str | None] = mapped_column(String(40))

    lease_token: Mapped[int] = mapped_column(Integer, default=0)
    """Raised by every claim: a write that carries an older one is refused."""
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_expires_at: Mapped[float | None] = mapped_column(Double)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts that ended with a reason: an error of the trainer, or of the worker."""
    crashes: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts in a row that just ended, none of which got the job to a newer checkpoint."""
    crash_step: Mapped[int] = mapped_column(Integer, default=0)
    """The step of the newest checkpoint at the last crash, 0 without one."""
    preemptions: Mapped[int] = mapped_column(Integer, default=0)
    retry_at: Mapped[float | None] = mapped_column(Double)
    """Until when a queued job waits after a failed attempt."""

    @property
    def fine_tuned_model(self) -> str | None:
        """The name of its model once that was made; it stays if the model is deleted."""
        return self.model_name if self.state == JobState.SUCCEEDED else None


# A literal: only with the value in its text does a statement let the databases use the index of these conditions.
IN_LINE = (
    JobRow.state == literal(JobState.QUEUED.value, literal_execute=True),
    JobRow.waits_for.is_(None),
    JobRow.held_by.is_(None),
)
"""A queued job that waits for no other and is not held by a limit: an index has these alone, so that what a claim looks
at stays small, however many jobs wait for others."""
Index(
    "ix_jobs_in_line",
    JobRow.state,  # always the same, but SQLite chooses the index by it
    JobRow.project_id,
    JobRow.priority.desc(),
    JobRow.seq,
    JobRow.retry_at,
    sqlite_where=and_(*IN_LINE),
    postgresql_where=and_(*IN_LINE),
)


class JobMetadataRow(Base):
    """One pair of a job's metadata, or two empty texts for a job without any, which no pair can be.

    Its primary key is the index that a filtered list is read from, at any depth.
    """

    __tablename__ = "job_metadata"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it so

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(512), primary_key=True)
    job_seq: Mapped[int] = mapped_column(
        ForeignKey("jobs.seq", ondelete="CASCADE"), primary_key=True, index=True, autoincrement=False
    )


class JobEventRow(Base):
    """One event of a job. A `once_key` makes it unique in the job, however often a worker reports it."""

    __tablename__ = "job_events"
    __table_args__ = (UniqueConstraint("job_id", "once_key"), Index("ix_job_events_job_seq", "job_id", "seq"))

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
    level: Mapped[str] = mapped_column(String(8))
    type: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any] | None] = mapped_column(Json)
    once_key: Mapped[str | None] = mapped_column(String(64))


class JobCheckpointRow(Base):
    """A checkpoint in the blob store; its `manifest.json` states the hash of every file."""

    __tablename__ = "job_checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "step"),)

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
    step: Mapped[int] = mapped_column(Integer)
    metrics: Mapped[dict[str, float]] = mapped_column(Json)
    blob_prefix: Mapped[str] = mapped_column(String(255))
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[float | None] = mapped_column(Double, index=True)
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of all files under the prefix; 0 for those of releases that did not count them."""


class JobArtifactRow(Base):
    """One published result of a succeeded job."""

    __tablename__ = "job_artifacts"
    __table_args__ = (UniqueConstraint("job_id", "name"),)

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(32))
    filename: Mapped[str] = mapped_column(String(255))
    media_type: Mapped[str] = mapped_column(String(64))
    blob_key: Mapped[str] = mapped_column(String(255))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[float | None] = mapped_column(Double, index=True)
