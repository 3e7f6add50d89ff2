"""What became of a data file, as the report says it."""

from __future__ import annotations

from trainer.frozen import Frozen


class DataSummary(Frozen):
    """One data file: what was in it and what was used; line numbers are the first twenty."""

    filename: str
    sha256: str
    rows: int
    used: int
    tokens: int
    trained_tokens: int
    cut: int
    cut_lines: tuple[int, ...]
    dropped: int
    dropped_lines: tuple[int, ...]
