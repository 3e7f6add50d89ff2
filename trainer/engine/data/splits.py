"""One data file of a job, ready to train or measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from trainer.contract.job import DataFile
from trainer.kit.data_summary import DataSummary

SHOWN_LINES = 20
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

    def summarise_file(self) -> DataSummary:
        """Return what the report says about the file."""
        return DataSummary(
            filename=self.file.filename,
            sha256=self.file.sha256,
            rows=self.read,
            used=len(self.rows),
            tokens=self.tokens,
            trained_tokens=self.trained_tokens,
            cut_lines=self.cut[:SHOWN_LINES],
            cut=len(self.cut),
            dropped_lines=self.dropped[:SHOWN_LINES],
            dropped=len(self.dropped),
        )


def format_lines(numbers: Sequence[int]) -> str:
    """Return `line 1, 4, 7`, the first twenty."""
    shown = ", ".join(str(number) for number in numbers[:SHOWN_LINES])
    return f"line {shown}" if len(numbers) <= SHOWN_LINES else f"line {shown} and {len(numbers) - SHOWN_LINES} more"
