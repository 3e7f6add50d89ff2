"""Plain text files, checked as a stream."""

from __future__ import annotations

import codecs

from burnish.datasets.base import DatasetSummary, Problem
from burnish.datasets.parsing import OTHER_FILE_BYTES, other_file


class TextChecker:
    """Checks a text file that is pushed in piece by piece: UTF-8 without NUL, and something in it.

    A good file counts as one row. After the first problem nothing more is looked at.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._start = b""
        self._line = 1
        self._blank = True
        self._problem: Problem | None = None

    @property
    def done(self) -> bool:
        """Whether nothing that follows can change the outcome."""
        return self._problem is not None and len(self._start) >= OTHER_FILE_BYTES

    def feed(self, chunk: bytes) -> None:
        """Check the next bytes. Raises nothing."""
        if len(self._start) < OTHER_FILE_BYTES:
            self._start += chunk[: OTHER_FILE_BYTES - len(self._start)]
        if self._problem is None and chunk:
            self._check_chunk(chunk, final=False)

    def finish(self) -> DatasetSummary:
        """Check what is left and return the outcome; call it once."""
        if self._problem is None:
            self._check_chunk(b"", final=True)
        if self._problem is None and self._blank:
            self._problem = Problem(0, "it has no text")
        # What the start gives away says more than the first byte that is out of place.
        if reason := other_file(self._start):
            self._problem = Problem(0, reason)
        return DatasetSummary(0, (self._problem,)) if self._problem else DatasetSummary(1)

    def _check_chunk(self, chunk: bytes, *, final: bool) -> None:
        if b"\0" in chunk:
            line = self._line + chunk.count(b"\n", 0, chunk.index(0))
            self._problem = Problem(line, "has a NUL byte: remove it, or save the file as UTF-8")
            return
        partial_character = self._decoder.getstate()[0]
        try:
            text = self._decoder.decode(chunk, final)
        except UnicodeDecodeError as error:
            data = partial_character + chunk
            line = self._line + data.count(b"\n", 0, error.start)
            self._problem = Problem(line, f"is not UTF-8 (byte 0x{data[error.start]:02x}): save the file as UTF-8")
            return
        self._line += text.count("\n")
        # A byte order mark at the start is accepted, but it is no text.
        self._blank = self._blank and not text.replace("\ufeff", "").strip()
