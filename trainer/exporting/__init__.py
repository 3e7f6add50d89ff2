"""Exports: a model merged into its base, as transformers' folder or as a GGUF file, checked by its logits."""

from __future__ import annotations

from pathlib import Path

from trainer.contract.export import OUTPUT_FOLDER, ExportCheck, ExportSpec
from trainer.exporting.check import Judge
from trainer.exporting.gguf_file import write_gguf
from trainer.exporting.merging import merge_model
from trainer.exporting.model_folder import write_folder


def export_model(spec: ExportSpec, folder: Path) -> ExportCheck:
    """Write `output/` in the folder of an export and return how close it comes to the model.

    Raises TrainerError: `export_mismatch` if the file does not give the model's logits,
    `unsupported_export` if the format has no place for this model, `invalid_base_model`.
    """
    merged = merge_model(spec.kind, folder)
    judge = Judge(merged)
    output = folder / OUTPUT_FOLDER
    output.mkdir()
    write = write_gguf if spec.format == "gguf" else write_folder
    written = write(spec, merged, output)
    # Two models in memory at once would double what a worker needs.
    merged.release_weights()
    return judge.compare_written(written, spec.precision)
