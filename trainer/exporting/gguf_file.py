"""A merged model as one GGUF file, as llama.cpp's converter lays it out: weights, hyperparameters, tokenizer, template.

Layouts: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and `convert_hf_to_gguf.py` of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, LlamaFileType
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from trainer.contract.export import ExportSpec
from trainer.engine.scoring.compare_outputs import export_mismatch
from trainer.exporting.check import WrittenExport
from trainer.exporting.gguf_families import FAMILIES, GgufFamily, find_rotation, list_refusals
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
_Numbers = np.ndarray[Any, Any]


def write_gguf(spec: ExportSpec, merged: MergedModel, output: Path) -> WrittenExport:
    """Write `output/FILENAME`; 8 bits for matrices whose rows are whole blocks of 32, else 16.

    Raises TrainerError (`unsupported_export`) for what the format, or its readers, have no place for.
    """
    model, config = merged.weights, merged.weights.config
    family = _find_architecture(merged)
    writer = GgufFileWriter(output / spec.filename, gguf.MODEL_ARCH_NAMES[family.arch])
    tensor_type, file_type = _TYPES[spec.precision]
    writer.add_name(spec.name)
    writer.add_file_type(file_type)
    if tensor_type is Type.Q8_0:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_hyperparameters(writer, config, family)
    add_tokenizer(writer, merged.tokenizer, int(config.vocab_size))
    for name, target, parameter in _place_parameters(model, family):
        stored = _stored_type(parameter, tensor_type)
        data = gguf.quants.quantize(_encode_weight(name, parameter, config, family), stored)
        writer.add_tensor(target, data, raw_dtype=stored)
        parameter.data.copy_(_round_parameter(parameter, stored))
    _write_file(writer)
    return WrittenExport(probe_model(model, merged.rows), _make_loader(output / spec.filename, config, family))


def explain_gguf_refusal(config: Any, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return why models with this configuration and tokenizer are not written as GGUF; None if they are."""
    try:
        _require_architecture(config)
        check_tokenizer(tokenizer)
    except TrainerError as error:
        return error.message
    return None


def _find_architecture(merged: MergedModel) -> GgufFamily:
    if merged.kind == "reward":
        raise _unsupported_model("a reward model has a score head, which llama.cpp does not read; export it as merged")
    return _require_architecture(merged.weights.config)


def _require_architecture(config: Any) -> GgufFamily:
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise _unsupported_model(
            f"models of the family {config.model_type} are not written as GGUF, only {', '.join(FAMILIES)}"
        )
    for reason in list_refusals(family, config):
        raise _unsupported_model(reason)
    return family


def _add_hyperparameters(writer: GGUFWriter, config: Any, family: GgufFamily) -> None:
    heads = int(config.num_attention_heads)
    head_size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    rope = find_rotation(config)
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
    if family.arch is not gguf.MODEL_ARCH.PHI3:
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
    family.describe(writer, config)


def _place_parameters(model: PreTrainedModel, family: GgufFamily) -> Iterator[tuple[str, str, torch.nn.Parameter]]:
    """Yield each parameter once with its name in GGUF: the output matrix that is the embedding is left out."""
    names = gguf.get_tensor_name_map(family.arch, int(model.config.num_hidden_layers))
    for name, parameter in model.named_parameters(remove_duplicate=True):
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise _unsupported_model(f"GGUF has no place for {name} of a {model.config.model_type} model")
        yield name, target, parameter


def _stored_type(parameter: torch.Tensor, wanted: Type) -> Type:
    if parameter.dim() < 2:
        return Type.F32
    return Type.F16 if wanted is Type.Q8_0 and parameter.shape[-1] % _Q8_BLOCK else wanted


def _encode_weight(name: str, parameter: torch.Tensor, config: Any, family: GgufFamily) -> _Numbers:
    """Return the numbers as llama.cpp computes with them: q and k in the order of its rotation, norms with their 1."""
    data = parameter.detach().float().cpu().numpy()
    if family.shifts_norms and name.endswith("norm.weight"):
        return data + np.float32(1)
    heads = _count_rotated_heads(name, config, family)
    if heads is None:
        return data
    halves = data.reshape(heads, 2, data.shape[0] // heads // 2, *data.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(data.shape))


def _decode_weight(name: str, data: _Numbers, config: Any, family: GgufFamily) -> _Numbers:
    """Return the numbers as transformers has them: the inverse of `_encode_weight`."""
    if family.shifts_norms and name.endswith("norm.weight"):
        return data - np.float32(1)
    heads = _count_rotated_heads(name, config, family)
    if heads is None:
        return data
    pairs = data.reshape(heads, data.shape[0] // heads // 2, 2, *data.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(data.shape))


def _count_rotated_heads(name: str, config: Any, family: GgufFamily) -> int | None:
    if not family.rotates_pairs:
        return None
    counts = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    return counts.get(name.split(".")[-2])


def _round_parameter(parameter: torch.Tensor, stored: Type) -> torch.Tensor:
    data = parameter.detach().float().cpu().numpy()
    return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(data, stored), stored).reshape(data.shape))


def _write_file(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _make_loader(
    file: Path, config: Any, family: GgufFamily
) -> Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    def load_gguf() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        where = str(file.parent)
        if family.reader == "mapping":
            # AutoTokenizer asks for the family's configuration first, which transformers cannot read.
            tokenizer = PreTrainedTokenizerFast.from_pretrained(where, gguf_file=file.name)
            return _read_by_mapping(file, config, family), tokenizer
        # Without a configuration, transformers makes one of what the file says.
        more = {"config": config} if family.reader == "weights" else {}
        model = AutoModelForCausalLM.from_pretrained(where, gguf_file=file.name, dtype=torch.float32, **more)
        return model, AutoTokenizer.from_pretrained(where, gguf_file=file.name)

    return load_gguf


def _read_by_mapping(file: Path, config: Any, family: GgufFamily) -> PreTrainedModel:
    """Load the file's weights into a new model of the same configuration, by the inverse of our own mapping.

    This shows that every weight is in the file, whole and under one name. It cannot show that the mapping is
    llama.cpp's: the tests ask llama.cpp itself, once for each family.
    """
    tensors: dict[str, Any] = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, target, parameter in _place_parameters(model, family):
        if target not in tensors:
            raise export_mismatch("file", "weights", f"it has no {target}")
        tensor = tensors[target]
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(parameter.shape)
        parameter.data.copy_(torch.from_numpy(np.array(_decode_weight(name, data, config, family))))
    return model.eval()


def _unsupported_model(reason: str) -> TrainerError:
    return TrainerError("unsupported_export", f"The model cannot be exported as GGUF: {reason}.", param="format")
