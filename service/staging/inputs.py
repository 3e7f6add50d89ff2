"""Results of earlier jobs, fetched for a job that starts from them: adapters, reward models, whole models as bases."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from service.context import Context
from service.jobs import references, repository
from service.jobs.model_names import compose_checkpoint_name
from service.jobs.parents import shown_parent
from service.jobs.references import EarlierResult, StoredResult
from service.kit.errors import ServiceError, Unavailable
from service.staging.errors import AttemptFailed, JobFailedForGood
from service.staging.hold import WorkHold
from service.staging.transfer import DamagedFiles, fetch_folder
from service.storage.errors import BlobNotFound, StorageError
from service.tables.jobs import JobRow
from trainer.contract.job import BaseModelRef, ParentModel, RewardModelRef
from trainer.contract.result import Manifest

WEIGHTS = "adapter_model.safetensors"
_ADAPTER_FILES = frozenset({"adapter_config.json", WEIGHTS})
_TOKENIZER_SUFFIXES = (".json", ".jinja", ".txt", ".model")
_MODEL = "model"

Bases = Callable[[str], tuple[BaseModelRef, Path | None]]
"""Makes a base ready by its id; `prepared_base` with everything else filled in."""


def fetch_start(context: Context, job: JobRow, hold: WorkHold, target: Path) -> ParentModel | None:
    """Fetch the adapter that a job starts from. None if it starts from its base alone.

    Raises JobFailedForGood if it was deleted, AttemptFailed, LeaseLost, and OSError if the disk is full.
    """
    if job.start_job is None:
        return None
    result = _parent_of(context, job, job.start_job, job.start_step, hold, _MODEL)
    # A whole model is not an adapter to start from: it is the job's base, and `fetch_base` brings it.
    if result.kind == "model":
        return None
    manifest = fetch_adapter(context, result, find_stored(context, result, hold, _MODEL), target, hold)
    return ParentModel(id=result.name, job_id=_own_id(job, result), sha256=_weights_sha256(manifest))


def fetch_reward(context: Context, job: JobRow, hold: WorkHold, target: Path, bases: Bases) -> RewardModelRef | None:
    """Fetch the reward model that a job asks, and link its base next to it if that differs from the job's.

    Raises JobFailedForGood if it was deleted, AttemptFailed, LeaseLost, and OSError if the disk is full.
    """
    param = f"method.{job.method['type']}.hyperparameters.reward.model"
    if job.reward_job is None:
        return None
    result = _parent_of(context, job, job.reward_job, job.reward_step, hold, param)
    stored_result = find_stored(context, result, hold, param)
    manifest = _fetch_stored(context, result.name, stored_result, target, hold, param=param, is_needed=_of_reward)
    base, folder = bases(result.job.base)
    if result.job.base != job.base and folder is not None:
        target.with_name("reward_base").symlink_to(folder, target_is_directory=True)
    return RewardModelRef(id=result.name, job_id=_own_id(job, result), sha256=_weights_sha256(manifest), base=base)


def find_base(context: Context, project_id: str, name: str, hold: WorkHold) -> tuple[EarlierResult, StoredResult]:
    """Return the whole model that serves as a base, and where it lies. Raises JobFailedForGood if it was deleted."""

    def look_up_base() -> tuple[EarlierResult, StoredResult | None]:
        with context.db.read() as session:
            result = references.find_result(session, project_id, name, param=_MODEL)
            return result, references.locate_result(session, result.job.id, result.step)

    try:
        result, stored_result = hold.retry_while_database_is_down(look_up_base)
    # Also a ServiceError, but one of the database and not of the model.
    except Unavailable:
        raise
    except ServiceError as error:
        raise _model_deleted(name, _MODEL) from error
    if stored_result is None:
        raise _model_deleted(name, _MODEL)
    return result, stored_result


def fetch_base(
    context: Context, result: EarlierResult, stored_result: StoredResult, target: Path, hold: WorkHold
) -> None:
    """Fetch a whole model into a new folder. Raises like `fetch_start`."""
    _fetch_stored(context, result.name, stored_result, target, hold, param=_MODEL, is_needed=_of_model)


def fetch_adapter(
    context: Context, result: EarlierResult, stored_result: StoredResult, target: Path, hold: WorkHold
) -> Manifest:
    """Fetch an adapter into a new folder. Raises like `fetch_start`."""
    return _fetch_stored(
        context, result.name, stored_result, target, hold, param=_MODEL, is_needed=_ADAPTER_FILES.__contains__
    )


def fetch_result(
    context: Context, result: EarlierResult, stored_result: StoredResult, target: Path, hold: WorkHold
) -> Manifest:
    """Fetch what a job left, or its checkpoint, without what only training needs. Raises like `fetch_start`."""
    is_needed = _of_model if result.kind == "model" else _of_adapter
    return _fetch_stored(context, result.name, stored_result, target, hold, param=_MODEL, is_needed=is_needed)


def _parent_of(
    context: Context, job: JobRow, parent_id: str, step: int | None, hold: WorkHold, param: str
) -> EarlierResult:
    return result_of(context, parent_id, step, hold, param, shown_name=shown_parent(job, parent_id))


def _own_id(job: JobRow, result: EarlierResult) -> str | None:
    """Return a parent's id for the report, which is for the job's project: None for another project's."""
    return result.job.id if result.job.project_id == job.project_id else None


def result_of(
    context: Context, job_id: str, step: int | None, hold: WorkHold, param: str, *, shown_name: str | None = None
) -> EarlierResult:
    """Return what a job leaves at its end, or at a checkpoint.

    Raises JobFailedForGood if the job was deleted; the error calls it `shown_name`.
    """

    def look_up_job() -> JobRow | None:
        with context.db.read() as session:
            return repository.by_id(session, job_id)

    parent = hold.retry_while_database_is_down(look_up_job)
    if parent is None:
        raise _model_deleted(shown_name or job_id, param)
    name = parent.model_name
    return EarlierResult(parent, step, name if step is None else compose_checkpoint_name(name, step))


def find_stored(context: Context, result: EarlierResult, hold: WorkHold, param: str) -> StoredResult:
    """Return where a result lies. Raises JobFailedForGood if it was deleted."""

    def look_up_stored() -> StoredResult | None:
        with context.db.read() as session:
            return references.locate_result(session, result.job.id, result.step)

    stored_result = hold.retry_while_database_is_down(look_up_stored)
    if stored_result is None:
        raise _model_deleted(result.name, param)
    return stored_result


def _fetch_stored(
    context: Context,
    name: str,
    stored_result: StoredResult,
    target: Path,
    hold: WorkHold,
    *,
    param: str,
    is_needed: Callable[[str], bool],
) -> Manifest:
    # What an interrupted try left: `fetch_folder` makes the folder itself.
    shutil.rmtree(target, ignore_errors=True)
    try:
        return fetch_folder(
            context.storage, stored_result.prefix, stored_result.manifest_sha256, target, hold, is_needed=is_needed
        )
    except BlobNotFound as error:
        raise _model_deleted(name, param) from error
    except DamagedFiles as error:
        raise AttemptFailed("model_damaged", f"The stored model {name} cannot be used: {error}.", param) from error
    except StorageError as error:
        raise AttemptFailed("storage_unavailable", str(error)) from error


def _weights_sha256(manifest: Manifest) -> str:
    return next((entry.sha256 for entry in manifest.files if entry.path == WEIGHTS), "")


def _of_reward(path: str) -> bool:
    """Choose the adapter and its tokenizer, by which the trainer sees that both models read the same tokens."""
    return path in _ADAPTER_FILES or path.endswith(_TOKENIZER_SUFFIXES)


def _of_adapter(path: str) -> bool:
    """Choose the adapter, its tokenizer and its model card."""
    return _of_reward(path) or path == "README.md"


def _of_model(path: str) -> bool:
    """Choose weights, configuration and tokenizer; of a checkpoint, not the optimizer's state."""
    return path.endswith(_TOKENIZER_SUFFIXES) or (path.startswith("model") and path.endswith(".safetensors"))


def _model_deleted(name: str, param: str) -> JobFailedForGood:
    return JobFailedForGood("model_deleted", f"The model {name} was deleted before the job could start from it.", param)
