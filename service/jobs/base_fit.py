"""Whether an order can be carried out: held against its base's card and against what the living workers have.

What is refused here would fail on its turn, after an hour in the queue. What cannot be known yet, as no worker runs,
is accepted with a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.orm import Session

from service.bases import repository as bases
from service.context import Context
from service.jobs.resources import Resources
from service.kit.errors import InvalidRequest
from service.tables.workers import WorkerRow
from service.workers import repository as workers
from service.workers.capacity import GB
from trainer.contract.base_model import BaseModelCard
from trainer.contract.memory import MemoryPlan, estimate_peak_memory
from trainer.contract.methods import Method
from trainer.contract.methods.base import CommonHyperparameters, LoraParameters


class BaseModelUnavailable(InvalidRequest):
    """A base that checks found broken, or changed under its id."""

    code = "base_model_unavailable"


class OrderFit(NamedTuple):
    """An order that may be placed: what its worker must have, and what its owner should know."""

    resources: Resources | None
    warnings: Sequence[str] = ()


def check_order(session: Session, context: Context, base: str, method: Method, resources: Resources | None) -> OrderFit:
    """Return what an order comes to. Raises InvalidRequest or BaseModelUnavailable if no attempt could succeed."""
    card = find_card(session, context, base)
    hyperparameters = method.hyperparameters
    if card is not None:
        _check_card(card, base, method)
    resources = _ask_for_gpu(method, resources)
    living = workers.alive_workers(session, within=context.settings.lease_seconds)
    fitting = [worker for worker in living if not _lacks(resources, worker)]
    warnings: list[str] = []
    if hyperparameters.quantization == "4bit":
        _check_4bit(method, living)
    warnings += _check_memory(card, base, method, resources, fitting)
    if not living and (hyperparameters.quantization == "4bit" or (resources is not None and resources.needs_gpu)):
        warnings.append(
            "No worker is running, so whether one has the GPU that this job needs is not known: it waits for one"
        )
    return OrderFit(resources, warnings)


def find_card(session: Session, context: Context, base: str) -> BaseModelCard | None:
    """Return a base's card; None if it has none yet, or is an earlier job's model. Raises BaseModelUnavailable."""
    entry = context.catalog.find_base(base)
    if entry is None:
        return None
    row = bases.find_base_row(session, base)
    if row is not None and row.fingerprint == entry.fingerprint and row.problem is not None:
        raise BaseModelUnavailable(row.problem, param="model")
    return bases.card_of(row, entry)


def explain_no_gguf(card: BaseModelCard | None, base: str) -> str | None:
    """Return the sentence for a base of which no GGUF can be written; None if it can, or nothing is known."""
    if card is None or card.gguf.works:
        return None
    return f"What is trained on {base} cannot be exported as GGUF: {card.gguf.reason}"


def _check_card(card: BaseModelCard, base: str, method: Method) -> None:
    support = card.methods.get(method.type)
    if support is not None and not support.works:
        raise InvalidRequest(
            f"The base model {base} cannot be trained by {method.type}: {support.reason.rstrip('.')}.", param="model"
        )
    lora = method.hyperparameters.lora
    if isinstance(lora, LoraParameters) and isinstance(lora.target_modules, list) and card.adapter_targets:
        absent = [name for name in lora.target_modules if name.rpartition(".")[2] not in card.adapter_targets]
        if absent:
            raise InvalidRequest(
                f"The base model {base} has no target modules named {', '.join(absent)}; those it has are: "
                f"{', '.join(card.adapter_targets)}.",
                param=_name_param(method, "lora.target_modules"),
            )


def _ask_for_gpu(method: Method, resources: Resources | None) -> Resources | None:
    """Let a training in 4 bits ask for a GPU, so that no other worker takes it. Raises InvalidRequest."""
    if method.hyperparameters.quantization != "4bit" or (resources is not None and resources.needs_gpu):
        return resources
    if resources is not None and resources.gpus == 0:
        raise InvalidRequest(
            "quantization 4bit needs a GPU, and resources.gpus is 0: leave one of them out.",
            param=_name_param(method, "quantization"),
        )
    return (resources or Resources.model_validate({})).model_copy(update={"gpus": 1})


def _lacks(resources: Resources | None, worker: WorkerRow) -> bool:
    return resources is not None and resources.describe_lack(workers.capacity_of(worker)) is not None


def _check_4bit(method: Method, living: Sequence[WorkerRow]) -> None:
    if not living or any(worker.trains_in_4bit for worker in living):
        return
    lack = "the Python package bitsandbytes" if any(worker.gpus for worker in living) else "a GPU"
    raise InvalidRequest(
        f"quantization 4bit needs {lack}, which none of the {len(living)} running worker(s) has: use none, or start a "
        "worker that has it.",
        param=_name_param(method, "quantization"),
    )


def _check_memory(
    card: BaseModelCard | None,
    base: str,
    method: Method,
    resources: Resources | None,
    fitting: Sequence[WorkerRow],
) -> list[str]:
    """Return a warning if some worker's GPU is too small. Raises InvalidRequest if that of each is."""
    if card is None or (resources is not None and resources.gpus == 0) or not fitting:
        return []
    needed = needed_memory(card, method.hyperparameters)
    # A worker without a GPU trains in its main memory, which is not held against anything.
    memories = [worker.gpu_memory for worker in fitting if worker.gpus and worker.gpu_memory is not None]
    small_count = sum(memory < needed for memory in memories)
    if not small_count:
        return []
    largest = max(memories)
    sentence = f"{method.type} on {base} needs about {needed / GB:.0f} GB of GPU memory"
    if small_count < len(fitting):
        return [
            f"{sentence}, which {small_count} of {len(fitting)} running workers do not have; "
            f"resources.gpu_memory_gb {needed / GB:.0f} keeps it from them"
        ]
    raise InvalidRequest(
        f"{sentence}, the largest worker has {largest / GB:.0f}: {_suggest_remedy(card, method, fitting, largest)}.",
        param="model",
    )


def needed_memory(card: BaseModelCard, hyperparameters: CommonHyperparameters) -> int:
    """Return the bytes without which a training cannot even begin: weights, adapter, optimizer and the export's check.

    Activations are left out: how long the rows are is known once they are read, and previews count that.
    """
    return estimate_peak_memory(MemoryPlan.on_gpu(card.shape, hyperparameters, tokens=0)).bytes


def _suggest_remedy(card: BaseModelCard, method: Method, fitting: Sequence[WorkerRow], largest: int) -> str:
    hyperparameters = method.hyperparameters
    if hyperparameters.result_kind == "model":
        return "train an adapter (weights lora), choose a smaller base, or start a worker with more memory"
    if hyperparameters.quantization == "none" and any(worker.trains_in_4bit for worker in fitting):
        in_4bit = hyperparameters.model_copy(update={"quantization": "4bit"})
        if needed_memory(card, in_4bit) <= largest:
            return "use quantization 4bit"
    return "choose a smaller base, or start a worker with more memory"


def _name_param(method: Method, name: str) -> str:
    return f"method.{method.type}.hyperparameters.{name}"
