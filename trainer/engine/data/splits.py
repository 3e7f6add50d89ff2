"""One data file of a job, ready to train or measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from trainer.contract.job import DataFile
from trainer.contract.preview import DataPreview
from trainer.kit.data_summary import DataSummary

SHOWN_LINES = 20
"""Of a list of lines in a sentence or in the report."""
PREVIEWED_LINES = 1000
R = TypeVar("R")


@dataclass(frozen=True)
class Split(Generic[R]):
    """One data file: how many rows were read, and those that fit the model, ready to train or measure on."""

    file: DataFile
    rows: Sequence[R]
    read: int
    tokens: int
    trained_tokens: int
    cut: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    also_trained: tuple[int, ...] = ()
    """Lines of a validation file's rows that are in the training file too."""
    used_rows: int | None = None
    """How many rows of the file `rows` come from, if a row may be several sequences."""
    skipped: tuple[int, ...] = ()
    """The rows that the chat template cannot render, left out as the job allows."""

    def preview_file(self, shown_lines: int = PREVIEWED_LINES) -> DataPreview:
        """Return what became of the file, with the first `shown_lines` of each list of lines."""
        return DataPreview(
            filename=self.file.filename,
            rows=self.read,
            used=len(self.rows) if self.used_rows is None else self.used_rows,
            tokens=self.tokens,
            trained_tokens=self.trained_tokens,
            cut=len(self.cut),
            cut_lines=self.cut[:shown_lines],
            dropped=len(self.dropped),
            dropped_lines=self.dropped[:shown_lines],
            also_trained=len(self.also_trained),
            also_trained_lines=self.also_trained[:shown_lines],
            skipped=len(self.skipped),
            skipped_lines=self.skipped[:shown_lines],
        )

    def summarise_file(self) -> DataSummary:
        """Return what the report says about the file."""
        return DataSummary(**self.preview_file(SHOWN_LINES).model_dump(), sha256=self.file.sha256)


def format_lines(numbers: Sequence[int]) -> str:
    """Return `line 1, 4, 7`, the first twenty."""
    shown = ", ".join(str(number) for number in numbers[:SHOWN_LINES])
    return f"line {shown}" if len(numbers) <= SHOWN_LINES else f"line {shown} and {len(numbers) - SHOWN_LINES} more"
