"""LoRA adapters: a new one, or one to continue from an earlier job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from torch import nn
from transformers import PreTrainedModel, set_seed
from transformers.pytorch_utils import Conv1D

from trainer.contract.methods.base import LoraParameters, Resolved
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
    # PEFT writes the names that all-linear came to, never the word.
    names = ["rank", "alpha", "use_dora", "use_rslora"] + ["target_modules"] * (wanted.target_modules != "all-linear")
    differing = [name for name in names if getattr(wanted, name) != getattr(there, name)]
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
    if lora.target_modules != "all-linear":
        _check_targets(model, lora.target_modules)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] - any number scales
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
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


def _check_targets(model: PreTrainedModel, targets: list[str]) -> None:
    head = model.get_output_embeddings()
    names = [
        name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D)) and module is not head
    ]
    # As PEFT looks for them: the end of a name, from a dot on.
    missing = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if missing:
        existing = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
        raise TrainerError(
            "invalid_hyperparameters",
            f"The base model has no target modules named {', '.join(missing)}; those it has are: {existing}.",
            param="lora.target_modules",
        )
