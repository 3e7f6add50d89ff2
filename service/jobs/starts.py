"""What a new job starts from, and what it must wait for: the rules of chains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from service.context import Context
from service.jobs import references
from service.jobs.errors import ParentFailed
from service.jobs.references import EarlierResult
from service.keys.service import Principal
from service.kit.errors import InvalidRequest
from service.models.errors import ModelNotFound
from service.tables.models import AdapterDownload
from trainer.contract.job import FROM_SCRATCH, LineageEntry
from trainer.contract.methods import Method
from trainer.contract.methods.onpolicy import ModelReward, RewardedHyperparameters
from trainer.contract.methods.pretraining import PretrainingMethod

_EARLIER = ("ft:", "ftjob-")


@dataclass(frozen=True)
class JobStart:
    """Where a job begins: a base, the adapter of `start` on it if there is one, and the `reward` that it asks."""

    base: str
    start: EarlierResult | None = None
    reward: EarlierResult | None = None
    lineage: Sequence[LineageEntry] = ()
    adapter_download: AdapterDownload = "allowed"

    def row_columns(self) -> dict[str, Any]:
        """Return what the job's row keeps of it."""
        parents = [parent for parent in (self.start, self.reward) if parent]
        waits = dict.fromkeys(parent.job.id for parent in parents if parent.waits)
        return {
            "base": self.base,
            "start_job": self.start and self.start.job.id,
            "start_step": self.start and self.start.step,
            "reward_job": self.reward and self.reward.job.id,
            "reward_step": self.reward and self.reward.step,
            "foreign_parents": " ".join(dict.fromkeys(p.job.id for p in parents if p.permission)) or None,
            "adapter_download": self.adapter_download,
            "waits_for": " ".join(waits) or None,
            "lineage": [entry.model_dump(mode="json") for entry in self.lineage],
        }


def resolve_start(session: Session, principal: Principal, context: Context, name: str, method: Method) -> JobStart:
    """Find the model to start from and the reward model. Raises ModelNotFound, ParentFailed or InvalidRequest."""
    start = _find_start(session, principal, context, name, method)
    hyperparameters = method.hyperparameters
    reward = hyperparameters.reward if isinstance(hyperparameters, RewardedHyperparameters) else None
    if not isinstance(reward, ModelReward):
        return start
    param = f"method.{method.type}.hyperparameters.reward.model"
    if not reward.model.startswith(_EARLIER):
        raise InvalidRequest(
            f"'{reward.model[:256]}' is not a reward model: name the result of a reward job, ft:… or ftjob-….",
            param=param,
        )
    reward_result = _find_named_result(session, principal, context, reward.model, param)
    # Refused at creation: the trainer would find it out only after the job had waited for a GPU.
    if reward_result.kind != "reward":
        raise InvalidRequest(
            f"{reward.model} comes from a job of the method {reward_result.job.method['type']}: it has no score head. "
            "Name the result of a reward job.",
            param=param,
        )
    # Called for its refusal only: a reward model on a base that is not shared with this project could not be loaded.
    _find_base(session, principal, context, reward_result, param)
    # What a reward model says goes into the result, its weights do not: they block no download.
    return replace(start, reward=reward_result)


def _find_start(session: Session, principal: Principal, context: Context, name: str, method: Method) -> JobStart:
    if name == FROM_SCRATCH:
        return _from_scratch(method)
    if context.catalog.find_base(name) is not None:
        return JobStart(name)
    if not name.startswith(_EARLIER):
        raise ModelNotFound(name, (entry.id for entry in context.catalog.models))
    result = _find_named_result(session, principal, context, name, "model")
    # An adapter lies on the base of its job; a whole model is a base itself, and a new adapter lies on it.
    base = result.name if result.kind == "model" else result.job.base
    _check_fits(result, method)
    # Both weights go into the new result, so a block on either holds for it.
    links = [result, *_find_base(session, principal, context, result, "model")]
    download_blocked = any(link.adapter_download == "blocked" for link in links)
    return JobStart(
        base,
        start=result,
        lineage=result.trace_lineage(),
        adapter_download="blocked" if download_blocked else "allowed",
    )


def _find_base(
    session: Session, principal: Principal, context: Context, result: EarlierResult, param: str
) -> Sequence[EarlierResult]:
    """Return the whole model of an earlier job that an adapter lies on, if it does. Raises InvalidRequest."""
    if result.kind == "model" or not result.job.base.startswith("ft:"):
        return ()
    try:
        return (_find_named_result(session, principal, context, result.job.base, param),)
    except (ModelNotFound, ParentFailed, InvalidRequest) as error:
        # One's own model: the original error names the missing base. Of another project's chain nothing may be
        # revealed.
        if result.permission is None:
            raise
        raise InvalidRequest(
            f"{result.name} lies on a whole model that is not shared with this project: ask its owner to share that "
            "one too.",
            param=param,
        ) from error


def _find_named_result(
    session: Session, principal: Principal, context: Context, name: str, param: str
) -> EarlierResult:
    return references.find_result(
        session,
        principal.project_id,
        name,
        param=param,
        bases=[entry.id for entry in context.catalog.models],
    )


def _from_scratch(method: Method) -> JobStart:
    if not (isinstance(method, PretrainingMethod) and method.hyperparameters.architecture):
        raise InvalidRequest(
            f"The model {FROM_SCRATCH} has no weights yet: make it by the method pretraining with an architecture.",
            param="model",
        )
    if method.hyperparameters.tokenizer == "base":
        raise InvalidRequest(
            f"The model {FROM_SCRATCH} has no base to take the tokenizer of: choose byte, char or bpe, or name a base.",
            param="method.pretraining.hyperparameters.tokenizer",
        )
    return JobStart(FROM_SCRATCH)


def _check_fits(result: EarlierResult, method: Method) -> None:
    if result.kind == "reward" and method.hyperparameters.result_kind != "reward":
        raise InvalidRequest(
            f"{result.name} is a reward model: it scores answers and writes none. A job of the method {method.type} "
            "starts from a model that writes; a reward job may continue it.",
            param="model",
        )
    makes_new = isinstance(method, PretrainingMethod) and method.hyperparameters.architecture is not None
    if makes_new and result.kind != "model":
        raise InvalidRequest(
            f"An architecture makes a new model, which starts from no adapter such as {result.name}: leave it out to "
            f"continue from that, or name {FROM_SCRATCH} or a base.",
            param="method.pretraining.hyperparameters.architecture",
        )
