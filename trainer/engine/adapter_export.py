"""The export: PEFT's format in safetensors, reloaded into a fresh base and compared before it counts as a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from trainer.contract.result import ExitCode, Manifest, hash_files, write_manifest
from trainer.engine.data.batches import collate_rows
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.loop.checkpoints import clean_adapter_config
from trainer.engine.models.load import load_model
from trainer.engine.scoring.evaluate import evaluation_mode
from trainer.frozen import Frozen
from trainer.kit.errors import TrainerError

# The reload computes the same operations on the same numbers; the room is for kernels that sum in another order.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.125}
VERIFIED_ROWS = 4


class Verification(Frozen):
    """The largest difference of any logit between the trained model and the reloaded export."""

    rows: int
    max_abs_difference: float
    tolerance: float


def export_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, base_id: str, card: str
) -> None:
    """Write adapter, tokenizer with its chat template, model card and the folder's manifest."""
    folder.mkdir(parents=True)
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    clean_adapter_config(folder, base_id)
    tokenizer.save_pretrained(str(folder))
    (folder / "README.md").write_text(card, encoding="utf-8")
    files = hash_files(folder, (path for path in folder.rglob("*") if path.is_file()))
    write_manifest(folder, Manifest(files=files, facts={"base": base_id}))


def verify_export(
    model: PeftModel, base: Path, folder: Path, rows: Sequence[TokenizedRow], *, dtype: str, pad_id: int
) -> Verification:
    """Load base and export anew and compare logits on a few rows.

    Raises TrainerError (`export_mismatch`) if they differ by more than rounding, or are not numbers.
    """
    chosen = rows[:VERIFIED_ROWS]
    batch = {name: values.to(model.device) for name, values in collate_rows(chosen, pad_id).items()}
    del batch["labels"]
    reloaded = PeftModel.from_pretrained(load_model(base, dtype), str(folder))
    difference = logits_difference(model, reloaded, batch, batch["attention_mask"].bool())
    return require_close("adapter", "logits", difference, TOLERANCE[dtype], rows=len(chosen))


def logits_difference(
    model: Any, reloaded: Any, batch: dict[str, torch.Tensor], real: torch.Tensor | None = None
) -> float:
    """Return the largest difference of any logit, at the `real` places [rows, tokens] if they are given."""
    with evaluation_mode(model), evaluation_mode(reloaded):
        difference = (_compute_logits(model, batch) - _compute_logits(reloaded, batch)).abs()
    return float((difference if real is None else difference[real]).max())


def require_close(what: str, outputs: str, difference: float, tolerance: float, *, rows: int) -> Verification:
    """Return how close a reloaded result comes to the trained model, the largest difference of its `outputs`.

    Raises TrainerError (`export_mismatch`) if they differ by more than `tolerance`, or are not numbers.
    """
    if not difference <= tolerance:
        raise TrainerError(
            "export_mismatch",
            f"The exported {what} does not give the trained model's {outputs}: they differ by {difference:.3g}, "
            f"where {tolerance:.3g} is allowed.",
            exit_code=ExitCode.FAULT,
        )
    return Verification(rows=rows, max_abs_difference=difference, tolerance=tolerance)


def _compute_logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch, use_cache=False).logits.float()
