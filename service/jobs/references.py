"""Models as jobs name them: a base of the catalog, the result of an earlier job, or one of its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from service.jobs import methods, repository, results_repository
from service.jobs.errors import ParentFailed
from service.jobs.model_names import split_checkpoint_name
from service.kit import ids
from service.kit.errors import InvalidRequest
from service.models import repository as models
from service.models.errors import ModelNotFound
from service.tables.jobs import JobRow, JobState
from service.tables.models import AdapterDownload, CheckpointPermissionRow
from trainer.contract.job import LineageEntry
from trainer.contract.methods.base import Kinds


@dataclass(frozen=True)
class StoredResult:
    """Where weights lie in the blob store, and the hash of their manifest where it is known."""

    prefix: str
    manifest_sha256: str | None


@dataclass(frozen=True)
class EarlierResult:
    """What an earlier job leaves, at its end or at a checkpoint; the job may not have ended yet."""

    job: JobRow
    step: int | None
    name: str
    """`ft:…`, with `:ckpt-step-N` for a checkpoint."""
    permission: CheckpointPermissionRow | None = None
    """By which another project may use it; None for its own."""

    @property
    def kind(self) -> Kinds:
        """What it is."""
        return methods.load_method(self.job.method).hyperparameters.result_kind

    @property
    def waits(self) -> bool:
        """Whether it is not there yet."""
        return self.step is None and self.job.state != JobState.SUCCEEDED

    @property
    def adapter_download(self) -> AdapterDownload:
        """Whether what is trained from it may be downloaded: every link of the chain must allow it."""
        links = [self.job.adapter_download, self.permission.adapter_download if self.permission else "allowed"]
        return "blocked" if "blocked" in links else "allowed"

    def trace_lineage(self) -> list[LineageEntry]:
        """Return what it came from, itself last; of another project's model, the name that was shared."""
        job = self.job
        if self.permission is not None:
            return [LineageEntry(model=self.name, job_id=None, method=None, training_sha256=None)]
        own = LineageEntry(
            model=self.name,
            job_id=job.id,
            method=job.method["type"],
            training_sha256=job.training_sha256,
            validation_sha256=job.validation_sha256,
        )
        return [*(LineageEntry.model_validate(entry) for entry in job.lineage), own]


def find_result(
    session: Session, project_id: str, name: str, *, param: str, bases: Iterable[str] = ()
) -> EarlierResult:
    """Return what `name` (`ft:…`, `ft:…:ckpt-step-N`, `ftjob-…`) means: the project's own, or shared with it.

    Raises ModelNotFound; ParentFailed if the job ended without a result; InvalidRequest for an unknown checkpoint.
    """
    permission = models.find_permission(session, project_id, name)
    job = repository.by_id(session, permission.job_id) if permission is not None else None
    if job is None:
        return find_own(session, project_id, name, param=param, bases=bases)
    # The owner's ids and the steps of its other checkpoints are not for the project that asks.
    try:
        result = find_own(session, job.project_id, name, param=param)
    except ParentFailed as error:
        raise ParentFailed(job.id, job.state, param=param, shared_as=name) from error
    except (InvalidRequest, ModelNotFound) as error:
        raise ModelNotFound(name, bases, param=param) from error
    return replace(result, permission=permission)


def find_own(session: Session, project_id: str, name: str, *, param: str, bases: Iterable[str] = ()) -> EarlierResult:
    """Return what `name` means among a project's own jobs. Raises as `find_result` does."""
    if name.startswith(ids.JOB):
        job = repository.get_project_job(session, project_id, name)
        if job is None:
            raise ModelNotFound(name, bases, param=param)
        return _require_success(session, EarlierResult(job, None, job.model_name), bases, param)
    plain, step = split_checkpoint_name(name)
    job = repository.find_job_by_model_name(session, project_id, plain)
    if job is None:
        raise ModelNotFound(name, bases, param=param)
    if step is None:
        return _require_success(session, EarlierResult(job, None, plain), bases, param)
    if results_repository.checkpoint_at(session, job.id, step) is None:
        known = ", ".join(str(number) for number in results_repository.checkpoint_steps(session, job.id)) or "none"
        raise InvalidRequest(f"{plain} has no checkpoint at step {step}; its checkpoints are at: {known}.", param=param)
    return EarlierResult(job, step, name)


def locate_result(session: Session, job_id: str, step: int | None) -> StoredResult | None:
    """Return where a job's result, or its checkpoint, lies. None if it was deleted."""
    if step is not None:
        checkpoint = results_repository.checkpoint_at(session, job_id, step)
        return None if checkpoint is None else StoredResult(checkpoint.blob_prefix, checkpoint.manifest_sha256)
    model = models.of_job(session, job_id)
    return None if model is None else StoredResult(model.blob_prefix, model.manifest_sha256)


def _require_success(session: Session, result: EarlierResult, bases: Iterable[str], param: str) -> EarlierResult:
    job = result.job
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        raise ParentFailed(job.id, job.state, param=param)
    if job.state == JobState.SUCCEEDED and models.of_job(session, job.id) is None:
        raise ModelNotFound(result.name, bases, param=param)
    return result
