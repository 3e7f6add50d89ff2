"""Loading the base model and putting a LoRA adapter on it."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.pytorch_utils import Conv1D

from trainer.errors import TrainerError
from trainer.methods.base import LoraParameters
from trainer.result import ExitCode

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_config(base: Path) -> PreTrainedConfig:
    """Read the base's configuration. Raises TrainerError (`invalid_base_model`)."""
    try:
        return AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _broken_base(error) from error


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """Load the base's tokenizer; one without a padding token pads with its end token (masked by length)."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _broken_base(error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(base: Path, dtype: str) -> PreTrainedModel:
    """Load the base's safetensors weights as `dtype` onto the device. Raises TrainerError (`invalid_base_model`)."""
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype=DTYPES[dtype], local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise _broken_base(error) from error
    model.config.use_cache = False
    return model.to(device())  # pyright: ignore[reportArgumentType]


def hidden_size(config: PreTrainedConfig) -> int:
    """Return the model's width."""
    return int(config.get_text_config().hidden_size)


def context_length(config: PreTrainedConfig) -> int:
    """Return the most tokens that the model can attend to."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2048)


def add_lora(model: PreTrainedModel, lora: LoraParameters, seed: int) -> PeftModel:
    """Wrap the model with a new adapter, its A matrices drawn from `seed`, its B matrices zero.

    Raises TrainerError (`invalid_hyperparameters`) where a target module does not exist, naming those that do.
    """
    if lora.target_modules != "all-linear":
        _check_targets(model, lora.target_modules)
    set_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] - any number scales
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        bias="none",
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, config)
    assert isinstance(wrapped, PeftModel)
    return wrapped


def _check_targets(model: PreTrainedModel, targets: list[str]) -> None:
    head = model.get_output_embeddings()
    names = [
        name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D)) and module is not head
    ]
    missing = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if missing:
        existing = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
        raise TrainerError(
            "invalid_hyperparameters",
            f"The base model has no target modules named {', '.join(missing)}; those it has are: {existing}.",
            param="method.supervised.hyperparameters.lora.target_modules",
        )


def _broken_base(error: Exception) -> TrainerError:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return TrainerError(
        "invalid_base_model", f"The base model cannot be loaded: {first_line}", param="model", exit_code=ExitCode.FAULT
    )
