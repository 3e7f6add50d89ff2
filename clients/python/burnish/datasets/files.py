"""Which check a file gets, by the end of its name: `.jsonl` rows, or `.txt` text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from burnish.datasets.base import DatasetSummary, Problem, RowFormat
from burnish.datasets.jsonl import LineChecker
from burnish.datasets.lines import MAX_LINE_BYTES
from burnish.datasets.text import TextChecker

ROWS_SUFFIX, TEXT_SUFFIX = ".jsonl", ".txt"
SUFFIXES = (ROWS_SUFFIX, TEXT_SUFFIX)


class FileChecker(Protocol):
    """A check of a file that is pushed in piece by piece."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        ...

    def finish(self) -> DatasetSummary:
        """Return the outcome; call it once."""
        ...


def checker_for(
    filename: str, row_format: RowFormat | None = None, *, max_line_bytes: int = MAX_LINE_BYTES
) -> FileChecker:
    """Return the check of a file with this name: of text for `.txt`, else of rows."""
    if filename.endswith(TEXT_SUFFIX):
        return TextChecker()
    return LineChecker(row_format, max_line_bytes=max_line_bytes)


def check_file(
    filename: str, chunks: Iterable[bytes], row_format: RowFormat, *, max_line_bytes: int = MAX_LINE_BYTES
) -> DatasetSummary:
    """Check a whole file for a method; one that the method cannot read at all is not looked into."""
    if filename.endswith(TEXT_SUFFIX) and not row_format.plain_text:
        reason = f"it is plain text, which only pretraining reads; {row_format.name} needs {ROWS_SUFFIX} rows"
        return DatasetSummary(0, (Problem(0, reason),))
    checker = checker_for(filename, row_format, max_line_bytes=max_line_bytes)
    for chunk in chunks:
        checker.feed(chunk)
    return checker.finish()
