"""What earlier jobs left, fetched for a job that goes on from it: adapters, reward models, whole models as bases."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from service.context import Context
from service.jobs import references, repository
from service.jobs.parents import shown_parent
from service.jobs.references import Result, Stored
from service.jobs.tables import Job
from service.kit.errors import ServiceError, Unavailable
from service.storage.errors import BlobNotFound, StorageError
from service.worker.errors import AttemptFailed, JobFailed
from service.worker.hold import Hold
from service.worker.transfer import Damaged, fetch_folder
from trainer.contract.job import BaseModelRef, ParentModel, RewardModelRef
from trainer.contract.result import Manifest

WEIGHTS = "adapter_model.safetensors"
_ADAPTER_FILES = frozenset({"adapter_config.json", WEIGHTS})
_TOKENIZER_SUFFIXES = (".json", ".jinja", ".txt", ".model")
_MODEL = "model"

Bases = Callable[[str], tuple[BaseModelRef, Path | None]]
"""Makes a base ready by its id; `prepared_base` with everything else filled in."""


def fetch_start(context: Context, job: Job, hold: Hold, target: Path) -> ParentModel | None:
    """Fetch the adapter that a job goes on from. None where it starts from its base alone.

    Raises JobFailed where it was deleted, AttemptFailed, LeaseLost, and OSError where the disk is full.
    """
    if job.start_job is None:
        return None
    result = _parent_of(context, job, job.start_job, job.start_step, hold, _MODEL)
    if result.kind == "model":
        return None
    manifest = fetch_adapter(context, result, find_stored(context, result, hold, _MODEL), target, hold)
    return ParentModel(id=result.name, job_id=_own_id(job, result), sha256=_weights(manifest))


def fetch_reward(context: Context, job: Job, hold: Hold, target: Path, bases: Bases) -> RewardModelRef | None:
    """Fetch the reward model that a job asks, and link its base beside it where that is another than the job's.

    Raises JobFailed where it was deleted, AttemptFailed, LeaseLost, and OSError where the disk is full.
    """
    param = f"method.{job.method['type']}.hyperparameters.reward.model"
    if job.reward_job is None:
        return None
    result = _parent_of(context, job, job.reward_job, job.reward_step, hold, param)
    stored = find_stored(context, result, hold, param)
    manifest = _fetch_stored(context, result.name, stored, target, hold, param=param, wanted=_of_reward)
    base, folder = bases(result.job.base)
    if result.job.base != job.base and folder is not None:
        target.with_name("reward_base").symlink_to(folder, target_is_directory=True)
    return RewardModelRef(id=result.name, job_id=_own_id(job, result), sha256=_weights(manifest), base=base)


def find_base(context: Context, project_id: str, name: str, hold: Hold) -> tuple[Result, Stored]:
    """Return the whole model that serves as a base, and where it lies. Raises JobFailed where it was deleted."""

    def find() -> tuple[Result, Stored | None]:
        with context.db.read() as session:
            result = references.find(
                session, project_id, name, organization=context.settings.organization, param=_MODEL
            )
            return result, references.stored(session, result.job.id, result.step)

    try:
        result, stored = hold.insist(find)
    except Unavailable:
        raise
    except ServiceError as error:
        raise _deleted(name, _MODEL) from error
    if stored is None:
        raise _deleted(name, _MODEL)
    return result, stored


def fetch_base(context: Context, result: Result, stored: Stored, target: Path, hold: Hold) -> None:
    """Fetch a whole model into a new folder. Raises like `fetch_start`."""
    _fetch_stored(context, result.name, stored, target, hold, param=_MODEL, wanted=_of_model)


def fetch_adapter(context: Context, result: Result, stored: Stored, target: Path, hold: Hold) -> Manifest:
    """Fetch an adapter into a new folder. Raises like `fetch_start`."""
    return _fetch_stored(context, result.name, stored, target, hold, param=_MODEL, wanted=_ADAPTER_FILES.__contains__)


def fetch_result(context: Context, result: Result, stored: Stored, target: Path, hold: Hold) -> Manifest:
    """Fetch what a job left, or its checkpoint, without what only training needs. Raises like `fetch_start`."""
    wanted = _of_model if result.kind == "model" else _of_adapter
    return _fetch_stored(context, result.name, stored, target, hold, param=_MODEL, wanted=wanted)


def _parent_of(context: Context, job: Job, parent_id: str, step: int | None, hold: Hold, param: str) -> Result:
    return result_of(context, parent_id, step, hold, param, shown=shown_parent(job, parent_id))


def _own_id(job: Job, result: Result) -> str | None:
    """Return a parent's id for the report, which is for the job's project: None for another project's."""
    return result.job.id if result.job.project_id == job.project_id else None


def result_of(
    context: Context, job_id: str, step: int | None, hold: Hold, param: str, *, shown: str | None = None
) -> Result:
    """Return what a job leaves at its end, or at a checkpoint.

    Raises JobFailed if the job was deleted; it names it as `shown`.
    """

    def find() -> Job | None:
        with context.db.read() as session:
            return repository.by_id(session, job_id)

    parent = hold.insist(find)
    if parent is None:
        raise _deleted(shown or job_id, param)
    name = parent.fine_tuned_model or references.model_name(parent, context.settings.organization)
    return Result(parent, step, name if step is None else f"{name}:ckpt-step-{step}")


def find_stored(context: Context, result: Result, hold: Hold, param: str) -> Stored:
    """Return where a result lies. Raises JobFailed where it was deleted."""

    def find() -> Stored | None:
        with context.db.read() as session:
            return references.stored(session, result.job.id, result.step)

    stored = hold.insist(find)
    if stored is None:
        raise _deleted(result.name, param)
    return stored


def _fetch_stored(
    context: Context,
    name: str,
    stored: Stored,
    target: Path,
    hold: Hold,
    *,
    param: str,
    wanted: Callable[[str], bool],
) -> Manifest:
    shutil.rmtree(target, ignore_errors=True)
    try:
        return fetch_folder(context.storage, stored.prefix, stored.manifest_sha256, target, hold, wanted=wanted)
    except BlobNotFound as error:
        raise _deleted(name, param) from error
    except Damaged as error:
        raise AttemptFailed("model_damaged", f"The stored model {name} cannot be used: {error}.", param) from error
    except StorageError as error:
        raise AttemptFailed("storage_unavailable", str(error)) from error


def _weights(manifest: Manifest) -> str:
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


def _deleted(name: str, param: str) -> JobFailed:
    return JobFailed("model_deleted", f"The model {name} was deleted before the job could start from it.", param)
