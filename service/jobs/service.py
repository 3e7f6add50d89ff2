"""The rules of jobs: what may be requested, and what becomes of it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from sqlalchemy.orm import Session

from service.context import Context
from service.files import repository as files_repository
from service.files import service as files
from service.files.intake import UPLOAD_PURPOSES
from service.jobs import base_fit, grading, lifecycle, methods, repository, results_repository, starts
from service.jobs.errors import (
    ArtifactNotReady,
    DownloadBlocked,
    JobHasEnded,
    JobInUse,
    JobNotFound,
    JobNotPaused,
    JobRunsStill,
    OtherResult,
    ResultsExpired,
)
from service.jobs.model_names import compose_model_name
from service.jobs.schemas import JobCreate
from service.jobs.states import TERMINAL, WIRE_STATUS
from service.keys.service import Principal
from service.kit import ids, outbox, tracing
from service.kit.errors import InvalidRequest
from service.limits import service as limits
from service.limits.values import QuotaLimits
from service.models import repository as models
from service.tables.files import FileRow
from service.tables.jobs import JobArtifactRow, JobRow, JobState

_WEIGHTS = ("adapter", "model")


@tracing.trace_calls("create job")
def add_job(session: Session, principal: Principal, context: Context, body: JobCreate) -> JobRow:
    """Create a job in `validating`: the controller checks its files next.

    Raises InvalidRequest, Conflict, NotFound or QuotaExceeded.
    """
    limits.require_job(session, QuotaLimits.from_settings(context.settings), principal.project_id)
    job, warnings = draft_job(session, principal, context, body)
    session.add(job)
    # The database sets `seq` and the time of creation; the pairs of metadata are indexed by `seq`.
    session.flush()
    session.refresh(job)
    repository.add_metadata(session, job)
    repository.add_event(session, job.id, f"Created fine-tuning job: {job.id}")
    repository.add_event(session, job.id, f"Validating training file: {job.training_file}")
    for warning in warnings:
        repository.add_event(session, job.id, warning, level="warn")
    return job


def draft_job(
    session: Session, principal: Principal, context: Context, body: JobCreate
) -> tuple[JobRow, Sequence[str]]:
    """Return the job of a creation, checked and not stored, and warnings for its owner.

    Raises InvalidRequest, Conflict, NotFound.
    """
    method = methods.parse_method(body)
    start = starts.resolve_start(session, principal, context, body.model, method)
    grading.check_grader(context, method, start.base, start.start)
    fit = base_fit.check_order(session, context, start.base, method, body.resources)
    training = _check_file(session, principal, body.training_file, "training_file")
    validation = None
    if body.validation_file is not None:
        validation = _check_file(session, principal, body.validation_file, "validation_file")
    job_id = ids.new_id(ids.JOB)
    job = JobRow(
        id=job_id,
        project_id=principal.project_id,
        state=JobState.VALIDATING,
        model=body.model,
        **start.row_columns(),
        method=method.model_dump(mode="json"),
        training_file=training.id,
        training_sha256=training.sha256,
        validation_file=validation and validation.id,
        validation_sha256=validation and validation.sha256,
        suffix=body.suffix,
        model_name=compose_model_name(
            start.base, organization=context.settings.organization, suffix=body.suffix, job_id=job_id
        ),
        traceparent=tracing.current_traceparent(),
        seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
        user_metadata=body.metadata,
        priority=body.priority or 0,
        timeout_seconds=body.timeout,
        budget=body.budget and body.budget.model_dump(exclude_none=True),
        resources=fit.resources and fit.resources.model_dump(),
        expires_after=body.expires_after and body.expires_after.model_dump(mode="json"),
        keep_checkpoints=body.keep_checkpoints,
        integrations=[item.model_dump() for item in body.integrations] if body.integrations else None,
    )
    return job, fit.warnings


def find_job(session: Session, principal: Principal, job_id: str) -> JobRow:
    """Return a job that the caller may see. Raises JobNotFound."""
    job = repository.get_project_job(session, principal.project_id, job_id)
    if job is None:
        raise JobNotFound(job_id)
    return job


def cancel_own_job(session: Session, principal: Principal, job_id: str) -> JobRow:
    """Cancel a job at once, whatever it is doing. Raises JobNotFound or JobHasEnded."""
    job = find_job(session, principal, job_id)
    was_moved = lifecycle.cancel_job(session, job_id)
    session.refresh(job)
    if not was_moved:
        raise JobHasEnded(job_id, job.state, "cancelled")
    return job


def pause_own_job(session: Session, principal: Principal, job_id: str) -> JobRow:
    """Pause a job: at once if it waits, else once its worker has kept a checkpoint. A paused one stays as it is.

    Raises JobNotFound or JobHasEnded.
    """
    job = find_job(session, principal, job_id)
    was_moved = lifecycle.pause_job(session, job_id)
    session.refresh(job)
    if not was_moved:
        raise JobHasEnded(job_id, job.state, "paused")
    return job


def resume_own_job(session: Session, principal: Principal, job_id: str) -> JobRow:
    """Resume a paused job. Raises JobNotFound, JobHasEnded or JobNotPaused."""
    job = find_job(session, principal, job_id)
    was_moved = lifecycle.resume_job(session, job_id)
    session.refresh(job)
    if not was_moved and job.state in TERMINAL:
        raise JobHasEnded(job_id, job.state, "resumed")
    if not was_moved:
        raise JobNotPaused(job_id, job.state)
    return job


def remove_job(session: Session, principal: Principal, context: Context, job_id: str) -> None:
    """Delete an ended job with everything it owns: events, checkpoints, results, its model and its result file.

    Its bytes go a little later, when no worker can still be writing any. Raises JobNotFound, JobRunsStill, JobInUse.
    """
    find_job(session, principal, job_id)
    # Locked, so that nothing changes the job between these checks and its deletion.
    job = repository.lock_job(session, job_id)
    assert job is not None
    if job.state not in TERMINAL:
        raise JobRunsStill(job_id, job.state)
    users = repository.users_of(session, job)
    if users:
        own = [user.id for user in users if user.project_id == job.project_id]
        raise JobInUse(job_id, own, foreign=len(users) - len(own))
    result = job.result_file and files_repository.get_project_file(session, principal.project_id, job.result_file)
    if result:
        files.remove_file(session, result)
    models.remove_of_job(session, job_id)
    repository.delete_job_row(session, job)
    settings = context.settings
    # A worker notices the deletion within its lease and then stops its trainer; what it writes until then must be
    # deleted as well.
    delay = settings.lease_seconds + settings.stop_seconds
    outbox.add_effect(session, outbox.Topic.DELETE_BLOBS, delay=delay, prefix=f"jobs/{job_id}")


def require_artifact(session: Session, principal: Principal, job_id: str, name: str) -> JobArtifactRow:
    """Return a result of a succeeded job.

    Raises JobNotFound, ArtifactNotReady, ResultsExpired, OtherResult, or DownloadBlocked for weights.
    """
    job = find_job(session, principal, job_id)
    if name in _WEIGHTS and job.adapter_download == "blocked":
        raise DownloadBlocked(job.fine_tuned_model or job_id)
    artifact = results_repository.find_artifact(session, job_id, name)
    if artifact is not None:
        return artifact
    actual_kind = "model" if methods.load_method(job.method).hyperparameters.result_kind == "model" else "adapter"
    if name in _WEIGHTS and name != actual_kind:
        raise OtherResult(job_id, name, actual_kind)
    if job.state == JobState.SUCCEEDED:
        raise ResultsExpired(job_id)
    raise ArtifactNotReady(job_id, name.partition(".")[0], WIRE_STATUS[JobState(job.state)])


def _check_file(session: Session, principal: Principal, file_id: str, param: str) -> FileRow:
    file = files.find_file(session, principal, file_id, param=param)
    if file.purpose not in UPLOAD_PURPOSES:
        raise InvalidRequest(
            f"The file {file_id} has the purpose '{file.purpose}'; a dataset needs 'fine-tune'.", param=param
        )
    return file
