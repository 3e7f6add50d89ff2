"""Loading the base model, its configuration and its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trainer.contract.result import ExitCode
from trainer.engine.models.weights import invalid_base
from trainer.kit.errors import TrainerError, as_trainer_error, is_machine_fault

# What transformers raises about files that it cannot read, or that do not fit each other.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_config(base: Path) -> PreTrainedConfig:
    """Read the base's configuration. Raises TrainerError (`invalid_base_model`)."""
    try:
        return AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except _UNREADABLE as error:
        raise _broken_base(error) from error


def language_class(config: PreTrainedConfig) -> Any:
    """Return the auto class that loads a base with its LM head: many that read images are in the second one alone.

    Raises TrainerError (`invalid_base_model`) if transformers has no such model for the family.
    """
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        if type(config) in auto._model_mapping:  # pyright: ignore[reportPrivateUsage] - the classes have no other face
            return auto
    raise TrainerError(
        "invalid_base_model",
        f"The base model's family is {config.model_type}, for which transformers has no model that writes text: "
        "choose another base.",
        param="model",
    )


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """Load the base's tokenizer; one without a padding token pads with its end token (masked by length)."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except _UNREADABLE as error:
        raise _broken_base(error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(base: Path, dtype: str, quantization: str = "none", *, auto: Any = None, **more: Any) -> PreTrainedModel:
    """Load the base's safetensors weights as `dtype` onto the device; `4bit` holds them in NF4, computing in `dtype`.

    `auto` is the class that gives the model its head, a language model's if it is None; `more` goes to its
    `from_pretrained`.

    Raises TrainerError (`invalid_base_model`, or `invalid_hyperparameters` for 4 bits without a GPU).
    """
    heads = [] if auto is None else ["score"]
    auto = auto or language_class(load_config(base))
    if quantization == "4bit":
        return _load_4bit(base, dtype, auto, heads, more)
    try:
        # A base is data: neither code in its folder nor pickles are run.
        model, report = auto.from_pretrained(
            base,
            dtype=DTYPES[dtype],
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **more,
        )
    except _UNREADABLE as error:
        raise _broken_base(error) from error
    require_weights(report, heads)
    prepare_config(model.config)
    return model.to(pick_device())  # pyright: ignore[reportArgumentType]


def prepare_config(config: PreTrainedConfig) -> None:
    """Switch off what a base's config.json may ask of each forward pass: a cache, and the routers' own outputs."""
    for part in (config, config.get_text_config()):
        part.use_cache = False
        # Losses are computed here, without the routers' loss; to collect its inputs fails beside a cache.
        if getattr(part, "output_router_logits", False):
            part.output_router_logits = False


def _load_4bit(base: Path, dtype: str, auto: Any, heads: list[str], more: dict[str, Any]) -> PreTrainedModel:
    if pick_device().type != "cuda" or find_spec("bitsandbytes") is None:
        missing = "a GPU" if pick_device().type != "cuda" else "the Python package bitsandbytes"
        raise TrainerError(
            "invalid_hyperparameters",
            f"quantization 4bit needs {missing}, which this worker does not have: use none, or another worker.",
            param="quantization",
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[dtype],
        llm_int8_skip_modules=heads or None,
    )
    try:
        model, report = auto.from_pretrained(
            base,
            dtype=DTYPES[dtype],
            quantization_config=config,
            device_map={"": 0},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **more,
        )
    except _UNREADABLE as error:
        raise _broken_base(error) from error
    require_weights(report, heads)
    prepare_config(model.config)
    return model


def require_weights(report: dict[str, Any], heads: Sequence[str] = ()) -> None:
    """Refuse a base whose files lack weights other than a head's: transformers draws them at random.

    Raises TrainerError (`invalid_base_model`).
    """
    lacking = sorted(name for name in report["missing_keys"] if name.split(".")[0] not in heads)
    if lacking:
        raise invalid_base(
            f"its files lack {len(lacking)} of the weights that config.json asks for, such as "
            f"{', '.join(lacking[:3])}: they would be random; copy all *.safetensors files, and the config.json that "
            "belongs to them"
        )


def hidden_size(config: PreTrainedConfig) -> int:
    """Return the model's width."""
    return int(config.get_text_config().hidden_size)


def inner_size(config: PreTrainedConfig) -> int:
    """Return the width inside the model's feed-forward layers: the widest one's, or four times the model's."""
    stated: Any = getattr(config.get_text_config(), "intermediate_size", None)
    widest = max(stated) if isinstance(stated, list | tuple) else stated
    return int(widest or 4 * hidden_size(config))


def context_length(config: PreTrainedConfig) -> int:
    """Return the most tokens that the model can attend to, 2048 if its family states no limit."""
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None) or 2048)


def _broken_base(error: Exception) -> TrainerError:
    if is_machine_fault(error):
        return as_trainer_error(error)
    first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return TrainerError(
        "invalid_base_model", f"The base model cannot be loaded: {first_line}", param="model", exit_code=ExitCode.FAULT
    )
