"""The rules of previews: a request is written down, a worker counts, the answer is read and forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.context import Context
from service.jobs import service as jobs
from service.jobs.queueing import QueueSnapshot
from service.jobs.schemas import JobCreate
from service.keys.service import Principal
from service.kit import ids
from service.limits import repository as limits
from service.previews import repository
from service.previews.errors import (
    CannotPreview,
    NoWorker,
    PreviewTimeout,
    StartNotReady,
    TooManyPreviews,
    WouldFail,
)
from service.previews.estimates import estimate_time
from service.previews.schemas import PreviewEstimates, PreviewObject
from service.tables.jobs import JobRow
from service.tables.previews import PreviewRow
from service.workers import repository as workers
from trainer.contract.preview import CountedJob, PreviewOutcome

_COLUMNS = (
    "project_id",
    "model",
    "base",
    "start_job",
    "start_step",
    "foreign_parents",
    "adapter_download",
    "lineage",
    "method",
    "training_file",
    "training_sha256",
    "validation_file",
    "validation_sha256",
    "suffix",
    "model_name",
    "seed",
    "priority",
    "timeout_seconds",
    "budget",
    "resources",
)


def request_preview(context: Context, principal: Principal, body: JobCreate, *, rows: int) -> str:
    """Write the request down for the workers; return its id.

    Raises what a creation of the job raises; NoWorker, TooManyPreviews, StartNotReady.
    """
    seconds = context.settings.preview_seconds
    with context.db.write() as session:
        job = jobs.draft_job(session, principal, context, body)
        if job.waits_for and job.base.startswith("ft:"):
            raise StartNotReady(job.model)
        if not workers.alive_workers(session, within=context.settings.lease_seconds):
            raise NoWorker
        limits.lock_project(session, principal.project_id)  # two requests cannot both get the last place
        most = context.settings.max_previews
        if repository.open_ones(session, principal.project_id, within=seconds) >= most:
            raise TooManyPreviews(most)
        columns: dict[str, Any] = {name: getattr(job, name) for name in _COLUMNS}
        if job.waits_for:  # the adapter is not there yet; the base alone decides what is counted
            columns.update(start_job=None, start_step=None)
        preview = PreviewRow(id=ids.new_id(ids.PREVIEW), project_id=principal.project_id, job=columns, rows_shown=rows)
        session.add(preview)
        return preview.id


def read_preview(context: Context, preview_id: str) -> PreviewObject | None:
    """Return what was counted; None while it is not there yet.

    Raises WouldFail if such a job would fail, CannotPreview if the worker failed.
    """
    with context.db.read() as session:
        preview = repository.by_id(session, preview_id)
        if preview is None or preview.result is None:
            return None
        outcome = PreviewOutcome.model_validate(preview.result)
        if outcome.failed is not None:
            raise (CannotPreview if outcome.failed.fault else WouldFail)(outcome.failed)
        assert outcome.counted is not None
        job = job_of(preview)
        time = estimate_time(session, job, outcome.counted)
        queue = QueueSnapshot.read_snapshot(session, context.settings, job.project_id).explain_new(job)
    job_counts, kind = outcome.counted, job.method["type"]
    return PreviewObject(
        model=job.model,
        base_model=job.base,
        method={"type": kind, kind: {**job.method[kind], "hyperparameters": job_counts.hyperparameters}},
        template_settings=job_counts.template_settings,
        training=job_counts.training,
        validation=job_counts.validation,
        steps=job_counts.steps,
        trained_tokens=job_counts.tokens,
        trained_tokens_exact=job_counts.tokens_exact,
        ended_by=job_counts.ended_by,
        adapter_download=job.adapter_download,
        warnings=[*job_counts.warnings, *_of_time(job, job_counts, time.seconds)],
        estimates=PreviewEstimates(memory=job_counts.memory, time=time),
        queue=queue,
        sample=list(job_counts.sample),
    )


def give_up(context: Context, preview_id: str) -> PreviewTimeout:
    """Return why there is no answer yet."""
    with context.db.read() as session:
        preview = repository.by_id(session, preview_id)
    note = preview.note if preview else None
    return PreviewTimeout(context.settings.preview_seconds, note, was_claimed=bool(preview and preview.taken_by))


def forget_preview(context: Context, preview_id: str) -> None:
    """Remove a request after its caller has gone."""
    with context.db.write() as session:
        repository.delete_preview(session, preview_id)


def job_of(preview: PreviewRow) -> JobRow:
    """Return the job that was asked about, which is in no table."""
    return JobRow(id=preview.id, running_seconds=0.0, **{"adapter_download": "allowed"} | preview.job)


def _of_time(job: JobRow, job_counts: CountedJob, seconds: float | None) -> Sequence[str]:
    """Return warnings about limits that the estimated time passes."""
    limits = {"timeout": job.timeout_seconds}
    minutes = (job.budget or {}).get("max_gpu_minutes")
    limits["budget"] = None if minutes is None else minutes * 60
    return [
        f"The {name} of {limit:g} seconds is shorter than the {seconds:g} seconds that {job_counts.steps} steps are "
        "estimated to take."
        for name, limit in limits.items()
        if limit is not None and seconds is not None and seconds > limit
    ]
