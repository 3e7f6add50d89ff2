"""What decides whether an export counts: logits, compared in steps that each leave one cause for a difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.contract.export import ExportCheck, Precision
from trainer.engine.scoring.compare_outputs import TOLERANCE, export_mismatch, require_close
from trainer.exporting.merging import MergedModel
from trainer.exporting.probes import TEXTS, Logits, encode_text, probe_model

# What rounding may change in the logits, relative to their spread. Of smollm2-135m it changes 0.000003, 0.0013, 0.0083
# and 0.029.
ROUNDING = {"f32": 1e-3, "f16": 0.02, "bf16": 0.1, "q8_0": 0.15}


@dataclass
class WrittenExport:
    """What was written: how to load it as others do, and the logits of the same weights, rounded in memory."""

    rounded: list[Logits]
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]


class Judge:
    """Keeps a model's logits while its file is written, and compares the file with them afterwards."""

    def __init__(self, merged: MergedModel) -> None:
        self._rows = merged.rows
        self._trained = merged.trained
        self._tokenizer = merged.tokenizer
        self._merge_difference = _compare_probes("merged model", merged.trained, merged.merged)

    def compare_written(self, written: WrittenExport, precision: Precision) -> ExportCheck:
        """Load what was written and compare it. Raises TrainerError (`export_mismatch`)."""
        model, tokenizer = written.load()
        loaded = probe_model(model, self._rows)
        difference = _compare_probes("file", written.rounded, loaded)
        error = _relative_error(self._trained, loaded)
        if not error <= ROUNDING[precision]:
            raise export_mismatch(
                "file", "logits", f"{precision} changes them by {error:.3g} of their spread; choose a finer precision"
            )
        self._require_tokenizer(tokenizer)
        return ExportCheck(
            rows=len(self._rows),
            merge_difference=self._merge_difference,
            file_difference=difference,
            rounding_error=error,
            tokenizer_rows=len(TEXTS),
        )

    def _require_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        for text in TEXTS:
            if encode_text(tokenizer, text) != encode_text(self._tokenizer, text):
                raise export_mismatch("file", "tokens", f"its tokenizer gives other tokens for {text[:20]!r}")


def _compare_probes(what: str, expected: list[Logits], found: list[Logits]) -> float:
    """Return the largest difference; raise TrainerError if it is more than another order of sums can make."""
    spread = max(float(row.std()) if row.numel() > 1 else float(row.abs().max()) for row in expected)
    return require_close(what, "logits", expected, found, TOLERANCE["float32"] * max(1.0, spread))


def _relative_error(expected: list[Logits], found: list[Logits]) -> float:
    """Return the difference's root mean square over that of the logits; what softmax does not see is left out."""
    differences = torch.cat([_center_logits(a - b).flatten() for a, b in zip(expected, found, strict=True)])
    spread = torch.cat([_center_logits(row).flatten() for row in expected])
    return float(differences.square().mean().sqrt() / spread.square().mean().sqrt().clamp(min=1e-2))


def _center_logits(logits: Logits) -> Logits:
    return logits - logits.mean(-1, keepdim=True) if logits.shape[-1] > 1 else logits
