"""A reward job's result as it lies in its folder: an adapter in PEFT's SEQ_CLS layout, with a score head."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file

from trainer.kit.errors import TrainerError

HEAD = "score"


@dataclass(frozen=True)
class RewardAdapter:
    """The adapter's shape, its weights by name without the head's, and the head's weights [1, width]."""

    config: LoraConfig
    weights: dict[str, torch.Tensor]
    head: torch.Tensor


def read_reward_adapter(folder: Path, *, param: str = "reward") -> RewardAdapter:
    """Read a reward job's adapter onto the CPU.

    It looks for the score head before PEFT does: without one, PEFT would score with a head drawn at random. Raises
    TrainerError (`incompatible_reward_model`, naming `param`) if it cannot be read or is no reward model.
    """
    try:
        task = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("task_type")
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise incompatible_reward_model(f"cannot be read: {error}", param=param) from error
    heads = [name for name in weights if name.endswith(f".{HEAD}.weight")]
    if task != "SEQ_CLS" or len(heads) != 1 or weights[heads[0]].shape[0] != 1:
        raise incompatible_reward_model(
            "is no reward model, as it has no score head: name the result of a reward job", param=param
        )
    head = weights.pop(heads[0])
    config = LoraConfig.from_pretrained(str(folder))
    assert isinstance(config, LoraConfig)
    return RewardAdapter(config, weights, head)


def incompatible_reward_model(reason: str, *, param: str = "reward") -> TrainerError:
    """Return the error that says why an adapter cannot be the reward model."""
    return TrainerError("incompatible_reward_model", f"The reward model's adapter {reason}.", param=param)
