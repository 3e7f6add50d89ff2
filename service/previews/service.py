"""The rules of previews: a request is written down, a worker counts, the answer is read and forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from service.context import Context
from service.jobs import base_fit
from service.jobs import service as jobs
from service.jobs.methods import load_method
from service.jobs.queueing import QueueSnapshot
from service.jobs.resources import Resources
from service.jobs.schemas import JobCreate
from service.keys.service import Principal
from service.kit import ids
from service.limits import repository as limits
from service.previews import repository
from service.previews.errors import (
    CannotPreview,
    NoWorker,
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
    """Write the request down for the workers, or take up the one that an earlier request left; return its id.

    Raises what a creation of the job raises; NoWorker, TooManyPreviews, StartNotReady.
    """
    seconds = context.settings.preview_seconds
    with context.db.write() as session:
        job, _ = jobs.draft_job(session, principal, context, body)
        if job.waits_for and job.base.startswith("ft:"):
            raise StartNotReady(job.model)
        if not workers.alive_workers(session, within=context.settings.lease_seconds):
            raise NoWorker
        earlier_id = repository.take_up_preview(session, principal.project_id, hash_body(body, rows=rows))
        if earlier_id is not None:
            return earlier_id
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
        base_warnings = _list_base_warnings(session, context, job)
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
        warnings=[*job_counts.warnings, *base_warnings, *_of_time(job, job_counts, time.seconds)],
        estimates=PreviewEstimates(memory=job_counts.memory, time=time),
        queue=queue,
        adapter=job_counts.adapter,
        sample=list(job_counts.sample),
    )


def _list_base_warnings(session: Session, context: Context, job: JobRow) -> list[str]:
    """Return what the base and the workers will not be able to do. Raises as a creation does, if that has changed."""
    resources = Resources.model_validate(job.resources) if job.resources else None
    fit = base_fit.check_order(session, context, job.base, load_method(job.method), resources)
    no_gguf = base_fit.explain_no_gguf(base_fit.find_card(session, context, job.base), job.base)
    return [*fit.warnings, *([no_gguf] if no_gguf else [])]


def hash_body(body: JobCreate, *, rows: int) -> str:
    """Return what two requests for the same preview have in common."""
    return hashlib.sha256(f"{rows}\n{body.model_dump_json()}".encode()).hexdigest()


def leave_preview(context: Context, preview_id: str, body: JobCreate, *, rows: int) -> str | None:
    """Let the counting go on without a request; return what it is busy with, None if no worker has begun.

    The same request, sent again, takes it up.
    """
    with context.db.write() as session:
        preview = repository.by_id(session, preview_id)
        repository.leave_preview(session, preview_id, hash_body(body, rows=rows))
    if preview is None or preview.taken_by is None:
        return None
    return preview.note or "A worker checks the files"


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
