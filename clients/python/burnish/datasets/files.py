"""Which check a file gets: of text if its name says `.txt`, else of rows, once its first bytes show its packing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import BinaryIO, Protocol

from burnish.datasets import parquet
from burnish.datasets.base import DatasetSummary, Problem, RowFormat
from burnish.datasets.errors import UnreadableError
from burnish.datasets.jsonl import LineChecker
from burnish.datasets.lines import MAX_LINE_BYTES, MAX_ROWS
from burnish.datasets.packing import MAGIC_BYTES, Limits, Packing, Unpacker, limit_growth, packing_of, unpack_chunks
from burnish.datasets.text import TextChecker

ROWS_SUFFIX, TEXT_SUFFIX = ".jsonl", ".txt"
PACKED_SUFFIXES = (".gz", ".zst", ".zstd")
_CHUNK = 1 << 20
_TAIL_BYTES = 8


class FileChecker(Protocol):
    """A check of a file that is pushed in piece by piece."""

    @property
    def done(self) -> bool:
        """Whether nothing that follows can change the outcome."""
        ...

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        ...

    def finish(self) -> DatasetSummary:
        """Return the outcome; call it once."""
        ...


def is_text(filename: str, packing: Packing = "none") -> bool:
    """Return whether a file is plain text: its name ends with `.txt` (in any case), and it is not Parquet.

    Of all others, whatever their names, the content decides whether they are rows.
    """
    return packing != "parquet" and _strip_packing_suffix(filename).endswith(TEXT_SUFFIX)


def checker_for(
    filename: str,
    row_format: RowFormat | None = None,
    *,
    packing: Packing = "none",
    max_line_bytes: int = MAX_LINE_BYTES,
    max_rows: int = MAX_ROWS,
) -> FileChecker:
    """Return the check of what a file with this name holds, unpacked: of text for `.txt`, else of rows."""
    if is_text(filename, packing):
        return TextChecker()
    return LineChecker(row_format, max_line_bytes=max_line_bytes, max_rows=max_rows)


class PackedChecker:
    """Checks a file as it is sent, packed or not: all of its lines, but of Parquet only that it is whole.

    Parquet begins at its end, so that its rows can be read when all of it is there.
    """

    def __init__(self, filename: str, *, max_line_bytes: int = MAX_LINE_BYTES, limits: Limits | None = None) -> None:
        self.packing: Packing = "none"
        """Known when four bytes have come."""
        self._limits = limits or Limits()
        self._inner = checker_for(filename, max_line_bytes=max_line_bytes)
        self._unpacker = Unpacker("none", self._limits)
        self._start: bytes | None = b""
        self._size, self._tail = 0, b""
        self._problem: str | None = None

    @property
    def done(self) -> bool:
        """Whether nothing that follows can change the outcome."""
        return self._problem is not None or self._inner.done

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises nothing."""
        if self._start is None:
            self._check_chunk(chunk)
            return
        self._start += chunk
        if len(self._start) >= MAGIC_BYTES:
            self._begin_unpacking(self._start)

    def finish(self) -> DatasetSummary:
        """Return the outcome; call it once. The rows of Parquet are not counted."""
        if self._start is not None:
            self._begin_unpacking(self._start)
        if self.packing == "parquet":
            self._problem = parquet.check_ends(self._size, self._tail)
            return self._make_failed_summary() if self._problem else DatasetSummary(0)
        if not self.done:
            try:
                self._unpacker.finish()
            except UnreadableError as error:
                self._problem = str(error)
        return self._make_failed_summary() if self._problem else self._inner.finish()

    def _begin_unpacking(self, start: bytes) -> None:
        self._start = None
        self.packing = packing_of(start)
        self._unpacker = Unpacker(self.packing, self._limits)
        self._check_chunk(start)

    def _check_chunk(self, chunk: bytes) -> None:
        if self.packing == "parquet":
            self._size += len(chunk)
            self._tail = (self._tail + chunk[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        elif not self.done:
            try:
                for piece in self._unpacker.feed(chunk):
                    self._inner.feed(piece)
                    if self._inner.done:
                        return
            except UnreadableError as error:
                self._problem = str(error)

    def _make_failed_summary(self) -> DatasetSummary:
        return DatasetSummary(0, (Problem(0, self._problem or ""),))


def check_file(
    filename: str,
    chunks: Iterable[bytes],
    row_format: RowFormat | None,
    *,
    packing: Packing = "none",
    max_line_bytes: int = MAX_LINE_BYTES,
    max_rows: int = MAX_ROWS,
) -> DatasetSummary:
    """Check what a file holds, unpacked, for a method; one that the method cannot read at all is not looked into.

    Without a row format, a row may be any object. The chunks are read only as far as they can change the outcome. Of
    Parquet, the problems have the numbers of rows. If reading fails, that is a problem of the file.
    """
    if row_format and is_text(filename, packing) and not row_format.plain_text:
        reason = f"it is plain text, which only pretraining reads; {row_format.name} needs {ROWS_SUFFIX} rows"
        return DatasetSummary(0, (Problem(0, reason),))
    checker = checker_for(filename, row_format, packing=packing, max_line_bytes=max_line_bytes, max_rows=max_rows)
    try:
        for chunk in chunks:
            checker.feed(chunk)
            if checker.done:
                break
    except UnreadableError as error:
        return DatasetSummary(0, (Problem(0, str(error)),))
    summary = _explain_name(filename, checker.finish())
    if packing != "parquet":
        return summary
    return replace(summary, problems=tuple(replace(problem, unit="row") for problem in summary.problems))


def open_dataset(file: BinaryIO, limits: Limits | None = None) -> tuple[Packing, Iterator[bytes]]:
    """Return a file's packing and what it holds: text in UTF-8, or rows as JSON lines. It may be a pipe.

    The iterator raises UnreadableError. A pipe of Parquet is put into a temporary file first.
    """
    start = b""
    while len(start) < MAGIC_BYTES and (piece := file.read(MAGIC_BYTES - len(start))):
        start += piece
    packing = packing_of(start)
    if packing == "parquet":
        return packing, _read_parquet(start, file, limits or Limits())
    chunks = chain((start,), iter(lambda: file.read(_CHUNK), b""))
    return packing, unpack_chunks(packing, chunks, limits or Limits())


def _read_parquet(start: bytes, file: BinaryIO, limits: Limits) -> Iterator[bytes]:
    if file.seekable():
        yield from limit_growth(file.seek(0, os.SEEK_END), parquet.read_lines(file), limits)
        return
    with tempfile.TemporaryFile() as copy:
        copy.write(start)
        shutil.copyfileobj(file, copy, _CHUNK)
        yield from limit_growth(copy.tell(), parquet.read_lines(copy), limits)


def _explain_name(filename: str, summary: DatasetSummary) -> DatasetSummary:
    """Add to the first problem of a file without a good row how to name text, unless its name says what it is."""
    if summary.rows or not summary.problems or _strip_packing_suffix(filename).endswith((ROWS_SUFFIX, TEXT_SUFFIX)):
        return summary
    first, *others = summary.problems
    hint = f"it is read as rows; if it is plain text for pretraining, let its name end with {TEXT_SUFFIX}"
    return replace(summary, problems=(replace(first, reason=f"{first.reason}; {hint}"), *others))


def _strip_packing_suffix(filename: str) -> str:
    """Return a name in small letters, without the ending of its packing."""
    name = filename.lower()
    return next((name.removesuffix(end) for end in PACKED_SUFFIXES if name.endswith(end)), name)
