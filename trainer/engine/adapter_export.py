"""The export: PEFT's format in safetensors, reloaded into a fresh base and compared before it counts as a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from trainer.contract.result import Manifest, hash_files, write_manifest
from trainer.engine.data.batches import collate_rows
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.loop.checkpoints import clean_adapter_config
from trainer.engine.models.load import load_model
from trainer.engine.models.portable import make_portable, own_eos
from trainer.engine.scoring.compare_outputs import TOLERANCE, compute_logits, require_close
from trainer.frozen import Frozen


class Verification(Frozen):
    """The largest difference of any logit or score between the trained model and the reloaded export."""

    rows: int
    max_abs_difference: float
    tolerance: float


def export_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, base_id: str, card: str
) -> None:
    """Write adapter, tokenizer with its chat template, model card and the folder's manifest."""
    folder.mkdir(parents=True)
    # PEFT would otherwise compare vocabularies to decide, and ask the hub for a base that it does not find.
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    clean_adapter_config(folder, base_id)
    tokenizer.save_pretrained(str(folder))
    make_portable(folder, tokenizer, own_eos(model))
    (folder / "README.md").write_text(card, encoding="utf-8")
    files = hash_files(folder, (path for path in folder.rglob("*") if path.is_file()))
    write_manifest(folder, Manifest(files=files, facts={"base": base_id}))


def verify_export(
    model: PeftModel, base: Path, folder: Path, rows: Sequence[TokenizedRow], *, dtype: str, pad_id: int
) -> Verification:
    """Load base and export anew and compare logits on these rows.

    Raises TrainerError (`export_mismatch`) if they differ by more than rounding, or are not numbers.
    """
    batch = {name: values.to(model.device) for name, values in collate_rows(rows, pad_id).items()}
    del batch["labels"]
    real = batch["attention_mask"].bool()
    reloaded = PeftModel.from_pretrained(load_model(base, dtype), str(folder))
    # Real tokens alone: nobody reads what stands behind a row's end.
    ours, theirs = (compute_logits(each, batch)[real] for each in (model, reloaded))
    tolerance = TOLERANCE[dtype]
    difference = require_close("adapter", "logits", [ours], [theirs], tolerance)
    return Verification(rows=len(rows), max_abs_difference=difference, tolerance=tolerance)
