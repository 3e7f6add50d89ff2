"""A merged model as one GGUF file, as llama.cpp's converter lays it out: weights, hyperparameters, tokenizer, template.

Layouts: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and `convert_hf_to_gguf.py` of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, LlamaFileType
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trainer.contract.export import ExportSpec
from trainer.exporting.check import WrittenExport
from trainer.exporting.gguf_tokenizer import GgufFileWriter, add_tokenizer, check_tokenizer
from trainer.exporting.merging import MergedModel
from trainer.exporting.probes import probe_model
from trainer.kit.errors import TrainerError

_TYPES = {
    "f32": (Type.F32, LlamaFileType.ALL_F32),
    "f16": (Type.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (Type.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
_Q8_BLOCK = 32


@dataclass(frozen=True)
class _Architecture:
    """How a family of transformers lies in GGUF."""

    arch: gguf.MODEL_ARCH
    rotates_pairs: bool = False
    """Whether llama.cpp turns neighbours where transformers turns halves, so that q and k are reordered."""


_ARCHITECTURES = {
    "llama": _Architecture(gguf.MODEL_ARCH.LLAMA, rotates_pairs=True),
    "phi3": _Architecture(gguf.MODEL_ARCH.PHI3),
    "qwen2": _Architecture(gguf.MODEL_ARCH.QWEN2),
}


def write_gguf(spec: ExportSpec, merged: MergedModel, output: Path) -> WrittenExport:
    """Write `output/FILENAME`; 8 bits for matrices whose rows are whole blocks of 32, else 16.

    Raises TrainerError (`unsupported_export`) for what the format, or its readers, have no place for.
    """
    model, config = merged.weights, merged.weights.config
    architecture = _find_architecture(merged)
    writer = GgufFileWriter(output / spec.filename, gguf.MODEL_ARCH_NAMES[architecture.arch])
    tensor_type, file_type = _TYPES[spec.precision]
    writer.add_name(spec.name)
    writer.add_file_type(file_type)
    if tensor_type is Type.Q8_0:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_hyperparameters(writer, config, architecture)
    add_tokenizer(writer, merged.tokenizer, int(config.vocab_size))
    names = gguf.get_tensor_name_map(architecture.arch, int(config.num_hidden_layers))
    for name, parameter in _unique_parameters(model):
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise _unsupported_model(f"GGUF has no place for {name} of a {config.model_type} model")
        stored = _stored_type(parameter, tensor_type)
        data = gguf.quants.quantize(_reorder_rotation(name, parameter, config, architecture), stored)
        writer.add_tensor(target, data, raw_dtype=stored)
        parameter.data.copy_(_round_parameter(parameter, stored))
    _write_file(writer)
    return WrittenExport(probe_model(model, merged.rows), _make_loader(output, spec.filename))


def explain_gguf_refusal(config: Any, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return why models with this configuration and tokenizer are not written as GGUF; None if they are."""
    try:
        _require_architecture(config)
        check_tokenizer(tokenizer)
    except TrainerError as error:
        return error.message
    return None


def _find_architecture(merged: MergedModel) -> _Architecture:
    if merged.kind == "reward":
        raise _unsupported_model("a reward model has a score head, which llama.cpp does not read; export it as merged")
    return _require_architecture(merged.weights.config)


def _require_architecture(config: Any) -> _Architecture:
    found = _ARCHITECTURES.get(config.model_type)
    if found is None:
        raise _unsupported_model(
            f"models of the family {config.model_type} are not written as GGUF, only {', '.join(_ARCHITECTURES)}"
        )
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    scaling = rope.get("rope_type", "default")
    if scaling != "default":
        raise _unsupported_model(f"rotary positions of the type {scaling} are not written as GGUF")
    window = getattr(config, "sliding_window", None)
    if window and window < config.max_position_embeddings and getattr(config, "use_sliding_window", True):
        raise _unsupported_model(f"attention with a sliding window of {window} tokens is not written as GGUF")
    for name in ("attention_bias", "mlp_bias"):
        if getattr(config, name, False) and config.model_type == "llama":
            raise _unsupported_model(f"{name} is not written as GGUF")
    return found


def _add_hyperparameters(writer: GGUFWriter, config: Any, architecture: _Architecture) -> None:
    heads = int(config.num_attention_heads)
    head_size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    writer.add_vocab_size(int(config.vocab_size))
    writer.add_context_length(int(config.max_position_embeddings))
    writer.add_embedding_length(int(config.hidden_size))
    writer.add_block_count(int(config.num_hidden_layers))
    writer.add_feed_forward_length(int(config.intermediate_size))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.num_key_value_heads))
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    writer.add_rope_dimension_count(int(head_size * float(rope.get("partial_rotary_factor", 1.0))))
    if architecture.arch is gguf.MODEL_ARCH.PHI3:
        writer.add_sliding_window(0)  # llama.cpp asks for the key; 0 is none
    elif head_size * heads != config.hidden_size:
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)


def _unique_parameters(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield each parameter once: the output matrix that is the embedding is left out."""
    yield from model.named_parameters(remove_duplicate=True)


def _stored_type(parameter: torch.Tensor, wanted: Type) -> Type:
    if parameter.dim() < 2:
        return Type.F32
    return Type.F16 if wanted is Type.Q8_0 and parameter.shape[-1] % _Q8_BLOCK else wanted


def _reorder_rotation(
    name: str, parameter: torch.Tensor, config: Any, architecture: _Architecture
) -> np.ndarray[Any, Any]:
    """Return the numbers in the order of llama.cpp's rotation."""
    data = parameter.detach().float().cpu().numpy()
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None or not architecture.rotates_pairs:
        return data
    halves = data.reshape(heads, 2, data.shape[0] // heads // 2, *data.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(data.shape))


def _round_parameter(parameter: torch.Tensor, stored: Type) -> torch.Tensor:
    data = parameter.detach().float().cpu().numpy()
    return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(data, stored), stored).reshape(data.shape))


def _write_file(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _make_loader(output: Path, filename: str) -> Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    def load_gguf() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        where = str(output)
        model = AutoModelForCausalLM.from_pretrained(where, gguf_file=filename, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(where, gguf_file=filename)

    return load_gguf


def _unsupported_model(reason: str) -> TrainerError:
    return TrainerError("unsupported_export", f"The model cannot be exported as GGUF: {reason}.", param="format")
