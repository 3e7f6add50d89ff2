"""JSON lines, read as a stream: memory stays flat whatever the file holds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator

from burnish.datasets.base import DatasetSummary, Problem, Row, RowFormat
from burnish.datasets.errors import InvalidLineError
from burnish.datasets.parsing import OTHER_FILE_BYTES, RefusedError, other_file, parse_row

MAX_LINE_BYTES = 8 << 20
MAX_PROBLEMS = 20
MAX_PROBLEMS_PER_ROW = 5
_STEP = 1 << 20

OnRow = Callable[[int, Row], None]


class LineSplitter:
    """Cuts chunks of bytes, however they fall, into numbered lines; keeps one line at most."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._number = 0
        self._tail = bytearray()
        self._tail_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes, int]]:
        """Yield number (from 1), content and length in bytes of each line that the chunk completes.

        The content is without its newline; of a line that is too long perhaps only the first bytes are left.
        """
        for start in range(0, len(chunk), _STEP):
            first, *others = chunk[start : start + _STEP].split(b"\n")
            self._hold(first)
            if others:
                yield self._take()
                last = others.pop()
                for line in others:
                    self._number += 1
                    yield self._number, line, len(line)
                self._hold(last)

    def finish(self) -> Iterator[tuple[int, bytes, int]]:
        """Yield the last line, if it lacks its newline."""
        if self._tail_bytes:
            yield self._take()

    def _hold(self, piece: bytes) -> None:
        self._tail_bytes += len(piece)
        if self._tail_bytes <= self._max:
            self._tail += piece
        else:
            self._tail += piece[:OTHER_FILE_BYTES]
            del self._tail[OTHER_FILE_BYTES:]

    def _take(self) -> tuple[int, bytes, int]:
        self._number += 1
        line, length = bytes(self._tail), self._tail_bytes
        self._tail.clear()
        self._tail_bytes = 0
        return self._number, line, length


class LineChecker:
    """Checks a JSONL file that is pushed in piece by piece, and each row against a row format.

    It goes on after a bad line, keeps the first 20 problems and counts the others. Blank lines are passed
    over, as is a carriage return at a line's end. `on_row` gets the number and the row of every good line.
    """

    def __init__(
        self,
        row_format: RowFormat | None = None,
        *,
        on_row: OnRow | None = None,
        min_rows: int = 1,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_problems: int = MAX_PROBLEMS,
    ) -> None:
        self._format, self._on_row = row_format, on_row
        self._min_rows, self._max_line_bytes, self._max_problems = min_rows, max_line_bytes, max_problems
        self._splitter = LineSplitter(max_line_bytes)
        self._problems: list[Problem] = []
        self._problem_count = 0
        self._lines = 0
        self._rows = 0
        self._hopeless = False

    def feed(self, chunk: bytes) -> None:
        """Check the lines that this chunk completes. Raises only what `on_row` raises."""
        if not self._hopeless:
            self._check(self._splitter.feed(chunk))

    def finish(self) -> DatasetSummary:
        """Check what is left and return the outcome; call it once."""
        if not self._hopeless:
            self._check(self._splitter.finish())
        if not self._lines:
            self._add(0, "there is no row in it: write one JSON object a line")
        elif self._lines < self._min_rows and not self._hopeless:
            self._add(0, f"it has {self._lines} row{'s' * (self._lines != 1)}; at least {self._min_rows} are needed")
        return DatasetSummary(self._rows, tuple(self._problems), self._problem_count - len(self._problems))

    def _check(self, lines: Iterator[tuple[int, bytes, int]]) -> None:
        for number, line, length in lines:
            if number == 1 and (reason := other_file(line)):
                # Nothing after this can be read as lines: one problem says it all.
                self._lines, self._hopeless = 1, True
                self._add(number, reason)
                return
            if length > self._max_line_bytes:
                self._lines += 1
                self._add(number, f"is {length} bytes long; a row may have {self._max_line_bytes}")
            elif line and not line.isspace():
                self._lines += 1
                self._check_line(number, line)

    def _check_line(self, number: int, line: bytes) -> None:
        try:
            row = parse_row(line)
        except RefusedError as error:
            self._add(number, str(error))
            return
        if self._format and (reasons := self._format.check(row)):
            for reason in reasons[:MAX_PROBLEMS_PER_ROW]:
                self._add(number, reason)
            return
        self._rows += 1
        if self._on_row:
            self._on_row(number, row)

    def _add(self, line: int, reason: str) -> None:
        self._problem_count += 1
        if len(self._problems) < self._max_problems:
            self._problems.append(Problem(line, reason))


def check_rows(
    chunks: Iterable[bytes],
    row_format: RowFormat | None = None,
    *,
    on_row: OnRow | None = None,
    min_rows: int = 1,
) -> DatasetSummary:
    """Check a whole JSONL file given as chunks of bytes; see `LineChecker`."""
    checker = LineChecker(row_format, on_row=on_row, min_rows=min_rows)
    for chunk in chunks:
        checker.feed(chunk)
    return checker.finish()


def iter_rows(chunks: Iterable[bytes]) -> Generator[tuple[int, Row], None, None]:
    """Yield number and row of each line that is not blank. Raises InvalidLineError at the first bad line."""
    splitter = LineSplitter()
    for chunk in chunks:
        yield from _rows_of(splitter.feed(chunk))
    yield from _rows_of(splitter.finish())


def _rows_of(lines: Iterator[tuple[int, bytes, int]]) -> Iterator[tuple[int, Row]]:
    for number, line, length in lines:
        if length > MAX_LINE_BYTES:
            raise InvalidLineError(number, f"is {length} bytes long; a row may have {MAX_LINE_BYTES}")
        if line and not line.isspace():
            try:
                yield number, parse_row(line)
            except RefusedError as error:
                raise InvalidLineError(number, str(error)) from None
