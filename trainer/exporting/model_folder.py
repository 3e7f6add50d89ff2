"""A merged model in transformers' layout: safetensors, configuration, tokenizer with its template, manifest."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.contract.export import ExportSpec
from trainer.contract.result import Manifest, hash_files, write_manifest
from trainer.engine.models.load import load_model, load_tokenizer
from trainer.engine.models.portable import make_portable, own_eos
from trainer.exporting.check import WrittenExport
from trainer.exporting.merging import MergedModel
from trainer.exporting.probes import probe_model

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def write_folder(spec: ExportSpec, merged: MergedModel, output: Path) -> WrittenExport:
    """Write the model in the precision asked for into `output`, its manifest last."""
    model = merged.weights
    _cast_weights(model, DTYPES[spec.precision])
    model.save_pretrained(str(output))
    merged.tokenizer.save_pretrained(str(output))
    make_portable(output, merged.tokenizer, own_eos(model))
    (output / "README.md").write_text(_folder_card(spec, merged), encoding="utf-8")
    files = hash_files(output, (path for path in output.rglob("*") if path.is_file()))
    write_manifest(output, Manifest(files=files, facts={"model": spec.name, "precision": spec.precision}))
    _cast_weights(model, torch.float32)
    rounded = probe_model(model, merged.rows)
    auto = merged.auto_class

    def load_folder() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return load_model(output, "float32", auto=auto), load_tokenizer(output)

    return WrittenExport(rounded, load_folder)


def _cast_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Round the weights alone: a model's `to` rounds the frequencies of its rotary positions too."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _folder_card(spec: ExportSpec, merged: MergedModel) -> str:
    return (
        f"# {spec.name}\n\n"
        f"All weights of the fine-tuned model in {NAMES[spec.precision]}, for transformers:\n\n"
        "```python\n"
        f"from transformers import {merged.auto_class.__name__}, AutoTokenizer\n\n"
        f'model = {merged.auto_class.__name__}.from_pretrained("FOLDER", dtype="auto")\n'
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        "```\n\n"
        "`manifest.json` states the SHA-256 of every file.\n"
    )
