"""How long checkpoints and results are kept, and which are kept all the same because something needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy.orm import Session

from service.files import repository as files_repository
from service.files import service as files
from service.jobs import repository, results_repository
from service.jobs.model_names import compose_checkpoint_name
from service.jobs.states import TERMINAL
from service.kit import outbox
from service.models import repository as models
from service.tables.jobs import JobCheckpointRow, JobRow
from trainer.contract.methods import METHODS_BY_TYPE
from trainer.contract.result import OUTPUT_FOLDER


def seconds_to_keep(job: JobRow, kept_kind: Literal["checkpoints", "artifacts"]) -> int | None:
    """Return how long a job's checkpoints or results are kept; None for good."""
    expiry: dict[str, Any] | None = (job.expires_after or {}).get(kept_kind)
    return expiry["seconds"] if expiry else None


def drop_expired_checkpoint(session: Session, checkpoint: JobCheckpointRow) -> bool:
    """Delete a checkpoint with its bytes and permissions. False if it is still needed."""
    job = repository.lock_job(session, checkpoint.job_id)
    return job is not None and _drop_checkpoint(session, job, checkpoint)


def prune_checkpoints(session: Session, job_id: str) -> int:
    """Delete the checkpoints beyond those that the job asked to keep; return how many."""
    job = repository.lock_job(session, job_id)
    if job is None or job.keep_checkpoints is None:
        return 0
    checkpoints = results_repository.all_checkpoints(session, job_id)
    best = best_of(checkpoints, str(job.method["type"]))
    # The best is kept besides the newest: it may be the one worth publishing or starting from.
    kept_steps = {checkpoint.step for checkpoint in [*checkpoints[-job.keep_checkpoints :], *([best] if best else [])]}
    old = [checkpoint for checkpoint in checkpoints if checkpoint.step not in kept_steps]
    return sum(_drop_checkpoint(session, job, checkpoint) for checkpoint in old)


def best_of(checkpoints: Sequence[JobCheckpointRow], method: str) -> JobCheckpointRow | None:
    """Return the first checkpoint with the best validation; None if none was validated."""
    name = METHODS_BY_TYPE[method].headline
    candidates: list[tuple[float, int, JobCheckpointRow]] = []
    for checkpoint in checkpoints:
        metrics = checkpoint.metrics
        value = metrics.get(f"valid_{name or 'loss'}", metrics.get(f"full_valid_{name or 'loss'}"))
        if value is not None:
            candidates.append((-value if name else value, checkpoint.step, checkpoint))
    return min(candidates)[2] if candidates else None


def drop_expired_results(session: Session, job_id: str) -> bool:
    """Delete a job's model, archives, report and result file, with their bytes. False if they are needed."""
    job = repository.lock_job(session, job_id)
    # A job that starts from this result may still be queued; expiry waits for it.
    if job is None or repository.users_of(session, job):
        return False
    for artifact in results_repository.all_artifacts(session, job_id):
        home, folder, _ = artifact.blob_key.partition(f"/{OUTPUT_FOLDER}/")
        # The attempt's whole output folder goes, with files that no artifact names, such as the manifest.
        if folder:
            outbox.add_effect(session, outbox.Topic.DELETE_BLOBS, prefix=f"{home}/{OUTPUT_FOLDER}")
        else:
            outbox.add_effect(session, outbox.Topic.DELETE_BLOBS, key=artifact.blob_key)
        results_repository.remove_artifact(session, artifact)
    model = models.of_job(session, job_id)
    if model is not None:
        models.delete_model_row(session, model)
        outbox.add_effect(session, outbox.Topic.DELETE_BLOBS, prefix=model.blob_prefix)
    result = job.result_file and files_repository.get_project_file(session, job.project_id, job.result_file)
    if result:
        files.remove_file(session, result)
    repository.add_event(session, job_id, "The results were deleted: their time was over", once_key="results-expired")
    return True


def _drop_checkpoint(session: Session, job: JobRow, checkpoint: JobCheckpointRow) -> bool:
    name = compose_checkpoint_name(job.model_name, checkpoint.step)
    if _is_needed(session, job, checkpoint, name):
        return False
    # A permission must not outlive its checkpoint: a later checkpoint of the same name would inherit it.
    models.unshare_model(session, name)
    results_repository.remove_checkpoint(session, checkpoint)
    outbox.add_effect(session, outbox.Topic.DELETE_BLOBS, prefix=checkpoint.blob_prefix)
    return True


def _is_needed(session: Session, job: JobRow, checkpoint: JobCheckpointRow, name: str) -> bool:
    if job.state not in TERMINAL:
        latest = results_repository.latest_checkpoint(session, job.id)
        if latest is not None and latest.step == checkpoint.step:
            return True  # the next attempt resumes from it
    return results_repository.uses_checkpoint(session, job.id, checkpoint.step, name)
