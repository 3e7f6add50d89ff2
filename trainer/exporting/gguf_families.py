"""The families that are written as GGUF: how each lies in the file, and which of its models llama.cpp computes.

A family is one entry of `FAMILIES` and one name of `trainer.contract.export.GGUF_FAMILIES`. The facts are those
of llama.cpp: what its converter stores (`conversion/`) and what it computes and takes for granted (`src/models/`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import gguf
from gguf import GGUFWriter

Reader = Literal["transformers", "weights", "mapping"]
"""Who reads an export of the family back: transformers alone; transformers, which does not read all of the numbers
beside the weights and takes them from the model's configuration; or, if transformers cannot, our own mapping."""


def _accept_config(config: Any) -> Iterator[str]:  # noqa: ARG001
    yield from ()


def _add_nothing(writer: GGUFWriter, config: Any) -> None:
    """Add nothing to what all families have."""


@dataclass(frozen=True)
class GgufFamily:
    """How a family of transformers lies in GGUF."""

    arch: gguf.MODEL_ARCH
    reader: Reader = "transformers"
    rotates_pairs: bool = False
    """Whether llama.cpp turns neighbours where transformers turns halves, so that q and k are reordered."""
    shifts_norms: bool = False
    """Whether the norms' weights are stored with the 1 that transformers' layers add."""
    activation: str = "silu"
    windows: bool = False
    """Whether llama.cpp knows the family's layers with a sliding window."""
    refuse: Callable[[Any], Iterator[str]] = _accept_config
    """Yields what of a configuration llama.cpp would compute in another way."""
    describe: Callable[[GGUFWriter, Any], None] = _add_nothing
    """Adds what the family has beside the numbers of all families."""


def list_refusals(family: GgufFamily, config: Any) -> Iterator[str]:
    """Yield why models with this configuration are not written, each as the end of a sentence."""
    scaling = find_rotation(config).get("rope_type", "default")
    if scaling != "default":
        yield f"rotary positions of the type {scaling} are not written as GGUF"
    window = getattr(config, "sliding_window", None)
    has_window = getattr(config, "use_sliding_window", True)
    if window and has_window and window < config.max_position_embeddings and not family.windows:
        yield f"attention with a sliding window of {window} tokens is not written as GGUF"
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", family.activation)
    if activation != family.activation:
        yield f"llama.cpp computes this family with the activation {family.activation}, not with {activation}"
    yield from family.refuse(config)


def find_rotation(config: Any) -> dict[str, Any]:
    """Return the rotary positions' numbers: of layers with full attention, if others have their own."""
    rotation: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    return cast("dict[str, Any]", rotation.get("full_attention", rotation))


def _refuse_biases(config: Any) -> Iterator[str]:
    for name in ("attention_bias", "mlp_bias"):
        if getattr(config, name, False):
            yield f"{name} is not written as GGUF"


def _refuse_smollm3(config: Any) -> Iterator[str]:
    yield from _refuse_biases(config)
    if [bool(rotates) for rotates in config.no_rope_layers] != [
        (layer + 1) % 4 != 0 for layer in range(config.num_hidden_layers)
    ]:
        yield "llama.cpp leaves the rotation out in every 4th layer, and this model in others"


def _refuse_gemma(config: Any) -> Iterator[str]:
    yield from _refuse_biases(config)
    if getattr(config, "use_bidirectional_attention", None):
        yield "attention to later tokens is not written as GGUF"
    if not config.tie_word_embeddings:
        yield "llama.cpp takes the embedding for the output matrix, and this model has its own"


def _refuse_gemma2(config: Any) -> Iterator[str]:
    yield from _refuse_gemma(config)
    yield from _refuse_pattern(config, 2)
    yield from _refuse_scale(config, largest=46)
    if not config.final_logit_softcapping or not config.attn_logit_softcapping:
        yield "llama.cpp caps the attention and the logits of this family softly, and this model does not"


def _refuse_gemma3(config: Any) -> Iterator[str]:
    yield from _refuse_gemma(config)
    yield from _refuse_pattern(config, 6)
    yield from _refuse_scale(config, largest=62)
    if config.final_logit_softcapping or config.attn_logit_softcapping:
        yield "llama.cpp does not cap the attention and the logits of this family softly, and this model does"
    local: dict[str, Any] = config.rope_parameters["sliding_attention"]
    if local["rope_theta"] != 10000.0 or local.get("rope_type", "default") != "default":
        yield "llama.cpp rotates layers with a window by the base 10000, and this model by another"


def _refuse_pattern(config: Any, period: int) -> Iterator[str]:
    layers = range(config.num_hidden_layers)
    usual = ["sliding_attention" if (layer + 1) % period else "full_attention" for layer in layers]
    if list(config.layer_types) != usual or not config.sliding_window:
        yield (
            f"llama.cpp gives full attention to one layer in {period}, the last, and the others a window, and this "
            "model has another pattern"
        )


def _refuse_scale(config: Any, largest: int) -> Iterator[str]:
    """Refuse queries that are divided by other numbers; llama.cpp knows the family's largest by its layers."""
    size = config.head_dim
    if config.num_hidden_layers == largest:
        size = config.hidden_size // config.num_attention_heads
    if config.query_pre_attn_scalar != size:
        yield (
            f"llama.cpp divides queries by the root of {size}, and this model by that of {config.query_pre_attn_scalar}"
        )


def _refuse_olmo2(config: Any) -> Iterator[str]:
    yield from _refuse_biases(config)
    if config.tie_word_embeddings:
        yield "llama.cpp asks for an output matrix, and this model takes the embedding for it"


def _describe_phi3(writer: GGUFWriter, config: Any) -> None:  # noqa: ARG001
    writer.add_sliding_window(0)  # llama.cpp asks for the key; 0 is none


def _describe_gemma2(writer: GGUFWriter, config: Any) -> None:
    writer.add_attn_logit_softcapping(float(config.attn_logit_softcapping))
    writer.add_final_logit_softcapping(float(config.final_logit_softcapping))
    writer.add_sliding_window(int(config.sliding_window))


def _describe_gemma3(writer: GGUFWriter, config: Any) -> None:
    writer.add_sliding_window(int(config.sliding_window))


def _describe_granite(writer: GGUFWriter, config: Any) -> None:
    writer.add_embedding_scale(float(config.embedding_multiplier))
    writer.add_residual_scale(float(config.residual_multiplier))
    writer.add_attention_scale(float(config.attention_multiplier))
    writer.add_logit_scale(float(config.logits_scaling))


_ARCH = gguf.MODEL_ARCH
_TANH = "gelu_pytorch_tanh"

FAMILIES = {
    "gemma": GgufFamily(_ARCH.GEMMA, "mapping", shifts_norms=True, activation=_TANH, refuse=_refuse_gemma),
    "gemma2": GgufFamily(
        _ARCH.GEMMA2,
        "weights",
        shifts_norms=True,
        activation=_TANH,
        windows=True,
        refuse=_refuse_gemma2,
        describe=_describe_gemma2,
    ),
    "gemma3_text": GgufFamily(
        _ARCH.GEMMA3,
        "weights",
        shifts_norms=True,
        activation=_TANH,
        windows=True,
        refuse=_refuse_gemma3,
        describe=_describe_gemma3,
    ),
    "granite": GgufFamily(
        _ARCH.GRANITE, "mapping", rotates_pairs=True, refuse=_refuse_biases, describe=_describe_granite
    ),
    "llama": GgufFamily(_ARCH.LLAMA, rotates_pairs=True, refuse=_refuse_biases),
    "mistral": GgufFamily(_ARCH.LLAMA, rotates_pairs=True),
    "olmo2": GgufFamily(_ARCH.OLMO2, "mapping", refuse=_refuse_olmo2),
    "phi3": GgufFamily(_ARCH.PHI3, describe=_describe_phi3),
    "qwen2": GgufFamily(_ARCH.QWEN2),
    "qwen3": GgufFamily(_ARCH.QWEN3, "weights", refuse=_refuse_biases),
    "smollm3": GgufFamily(_ARCH.SMOLLM3, "mapping", rotates_pairs=True, refuse=_refuse_smollm3),
}
