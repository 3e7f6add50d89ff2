"""LoRA adapters: a new one, or one to continue from an earlier job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from torch import nn
from transformers import PreTrainedModel, set_seed
from transformers.pytorch_utils import Conv1D

from trainer.contract.methods.base import LoraParameters, Resolved
from trainer.engine.models.families import TargetLayers, ends_with, find_targets
from trainer.kit.errors import TrainerError

CONFIG_NAME = "adapter_config.json"


def adapter_shape(asked: LoraParameters | str, start: Path | None) -> LoraParameters:
    """Return the shape of the adapter to train: as asked, that of the start adapter, or the default.

    Raises TrainerError (`invalid_hyperparameters`) if both are given and differ: a chain trains one adapter on.
    """
    wanted = asked if isinstance(asked, LoraParameters) else None
    if start is None:
        return wanted or LoraParameters()
    there = read_shape(start)
    if wanted is None:
        return there
    names = ("rank", "alpha", "use_dora", "use_rslora", "experts")
    differing = [name for name in names if getattr(wanted, name) != getattr(there, name)]
    differing += ["target_modules"] * (not _names_same_layers(wanted.target_modules, there.target_modules))
    if differing:
        said = ", ".join(f"{name} {getattr(wanted, name)} instead of {getattr(there, name)}" for name in differing)
        raise TrainerError(
            "invalid_hyperparameters",
            f"The job goes on with the adapter of the model that it starts from, which has another shape: {said}. "
            "Leave lora out.",
            param="lora",
        )
    # Dropout is no part of the shape: it changes how weights are trained, not what they are.
    return there.model_copy(update={"dropout": wanted.dropout})


def _names_same_layers(request: list[str] | str, there: list[str] | str) -> bool:
    # PEFT writes the names that all-linear came to, never the word.
    if request in ("all-linear", there):
        return True
    if isinstance(request, str) or isinstance(there, str):
        return False
    # Longer names stand there if the short ones would have found a router or a tower for images too.
    return all(ends_with(name, request) for name in there) and all(
        any(ends_with(name, [end]) for name in there) for end in request
    )


def read_shape(folder: Path) -> LoraParameters:
    """Read an adapter's shape from its `adapter_config.json`."""
    config = _read_config(folder)
    targets = config["target_modules"]
    return LoraParameters(
        rank=config["r"],
        alpha=float(config["lora_alpha"]),
        dropout=float(config["lora_dropout"]),
        # PEFT holds them as a set, whose order changes from run to run.
        target_modules=sorted(targets) if isinstance(targets, list) else targets,
        use_dora=bool(config.get("use_dora")),
        use_rslora=bool(config.get("use_rslora")),
        experts=bool(config.get("target_parameters")),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))


def add_adapter(
    model: PreTrainedModel,
    resolved: Resolved,
    *,
    start: Path | None = None,
    task_type: str = "CAUSAL_LM",
    modules_to_save: list[str] | None = None,
) -> PeftModel:
    """Wrap the model with a trainable adapter named `default`: the start adapter's copy, or a new one.

    With `modules_to_save` it may be of another task: its weights are copied, those modules' only if it has them.
    A new one's A matrices are drawn from the seed, its B matrices are zero. Raises TrainerError
    (`invalid_hyperparameters`) if a target module does not exist, naming those that do, and
    (`incompatible_start_model`) if a reward model is to become a language model.
    """
    # Before PEFT, which draws the A matrices from the global generator.
    set_seed(resolved.seed)
    lora = resolved.lora
    if start is not None and modules_to_save is None:
        if _read_config(start)["task_type"] != task_type:
            raise TrainerError(
                "incompatible_start_model",
                "The job starts from a reward model, which scores text instead of writing it: start from another "
                "model, or name this one as the reward of a ppo or grpo job.",
                param="model",
            )
        return PeftModel.from_pretrained(model, str(start), is_trainable=True)
    targets = lora_targets(model, lora, skip=modules_to_save or ())
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] - any number scales
        lora_dropout=lora.dropout,
        target_modules=_peft_names(model, lora, targets),
        target_parameters=list(targets.parameters) or None,
        use_dora=lora.use_dora,
        use_rslora=lora.use_rslora,
        bias="none",
        task_type=task_type,
        modules_to_save=modules_to_save,
    )
    wrapped = get_peft_model(model, config)
    assert isinstance(wrapped, PeftModel)
    if start is not None:
        _copy_start_weights(wrapped, start)
    return wrapped


def _peft_names(model: nn.Module, lora: LoraParameters, targets: TargetLayers) -> list[str]:
    """Return the names as they were asked for if PEFT finds no other layer by them, else each layer's own."""
    if lora.target_modules == "all-linear":
        return list(targets.modules)
    layers = [
        name
        for name, part in model.named_modules()
        if isinstance(part, (nn.Linear, Conv1D)) and ends_with(name, lora.target_modules)
    ]
    return list(lora.target_modules) if layers == list(targets.modules) else list(targets.modules)


def lora_targets(model: nn.Module, lora: LoraParameters, *, skip: Sequence[str] = ()) -> TargetLayers:
    """Return which layers of a model without adapters get one of this shape; `skip` are trained as they are.

    PEFT's own `all-linear` would take routers, towers for images, and layers that it refuses. Raises TrainerError
    (`invalid_hyperparameters`).
    """
    if lora.experts and (lora.dropout or lora.use_dora):
        wrong = "dropout" if lora.dropout else "use_dora"
        raise TrainerError(
            "invalid_hyperparameters",
            f"lora.experts cannot be combined with lora.{wrong}: PEFT computes the experts' adapters without it. Leave "
            "one of them out.",
            param=f"lora.{wrong}",
        )
    names = None if lora.target_modules == "all-linear" else lora.target_modules
    return find_targets(model, names=names, experts=lora.experts, skip=skip)


def _copy_start_weights(model: PeftModel, start: Path) -> None:
    """Copy the start adapter's weights, and those of its saved modules that the model has; the rest stays new."""
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    given = load_peft_weights(str(start), device="cpu")
    foreign = sorted(name for name in given if name not in own or given[name].shape != own[name].shape)
    if foreign:
        raise TrainerError(
            "incompatible_start_model",
            f"The model that the job starts from has weights that do not fit this method's model: {foreign[0]}.",
            param="model",
        )
    set_peft_model_state_dict(model, {**own, **given})
