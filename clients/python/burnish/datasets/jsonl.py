"""JSON lines, read as a stream: memory stays flat whatever the file holds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator

from burnish.datasets.base import DatasetSummary, Problem, Row, RowFormat
from burnish.datasets.errors import InvalidLineError
from burnish.datasets.layouts import other_layout
from burnish.datasets.lines import MAX_LINE_BYTES, MAX_ROWS, Block, BlockSplitter, LineBudget, LineSplitter, lines_of
from burnish.datasets.parsing import RefusedError, other_file, parse_row
from burnish.datasets.quick import good_rows

MAX_PROBLEMS = 20
MAX_PROBLEMS_PER_ROW = 5
MAX_COUNTED_PROBLEMS = 1000
"""After so many problems nothing more is looked at: a problem takes a hundred times as long as a good line."""

OnRow = Callable[[int, Row], None]


class LineChecker:
    """Checks a JSONL file that is pushed in piece by piece, and each row against a row format.

    It reads on after a bad line, keeps the first 20 problems and counts the others, up to `MAX_COUNTED_PROBLEMS`: there
    it stops. It stops, too, at more than `max_rows` rows, or far too many tiny lines. Blank lines are passed over, as
    is a carriage return at a line's end. `on_row` gets the number and the row of every good line.
    """

    def __init__(
        self,
        row_format: RowFormat | None = None,
        *,
        on_row: OnRow | None = None,
        min_rows: int = 1,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_problems: int = MAX_PROBLEMS,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self._format, self._on_row = row_format, on_row
        self._min_rows, self._max_line_bytes, self._max_problems = min_rows, max_line_bytes, max_problems
        self._splitter = BlockSplitter(max_line_bytes)
        self._budget = LineBudget(max_rows)
        self._problems: list[Problem] = []
        self._problem_count = 0
        self._lines = 0
        self._rows = 0
        self._opening: tuple[int, bytes] | None = None
        """The first line, if it is not JSON: with the next one it may show what the file is."""
        self._done = False
        self._stopped_at: int | None = None

    @property
    def done(self) -> bool:
        """Whether nothing that follows can change the outcome."""
        return self._done

    def feed(self, chunk: bytes) -> None:
        """Check the lines that this chunk completes. Raises only what `on_row` raises."""
        if not self._done:
            self._check_blocks(self._splitter.feed(chunk))

    def finish(self) -> DatasetSummary:
        """Check what is left and return the outcome; call it once."""
        if not self._done:
            self._check_blocks(self._splitter.finish())
        if not self._lines:
            self._add_problem(0, "it has no rows: write one JSON object a line")
        elif self._lines < self._min_rows and not self._done:
            self._add_problem(
                0, f"it has {self._lines} row{'s' * (self._lines != 1)}; at least {self._min_rows} are needed"
            )
        more = self._problem_count - len(self._problems)
        return DatasetSummary(self._rows, tuple(self._problems), more, self._stopped_at)

    def _check_blocks(self, blocks: Iterator[Block]) -> None:
        for block in blocks:
            if block.first == 1 and (reason := other_file(block.data)):
                # Nothing after this can be read as lines: one problem says it all.
                self._lines, self._done = 1, True
                self._add_problem(1, reason)
                return
            if not self._is_good(block):
                self._check_lines(block)
            if not self._done and (reason := self._budget.count_block(block, self._lines)):
                self._done = True
                self._add_problem(0, reason)
            if self._done:
                return

    def _is_good(self, block: Block) -> bool:
        """Take a block as a whole, if it is good beyond doubt."""
        if block.length > self._max_line_bytes and any(length > self._max_line_bytes for *_, length in lines_of(block)):
            return False
        if self._opening is not None and self._lines == 1:
            return False
        rows = good_rows(block, self._format)
        if rows is None:
            return False
        self._lines += len(rows)
        self._rows += len(rows)
        if self._on_row:
            numbers = (number for number, line, _ in lines_of(block) if line)
            for number, row in zip(numbers, rows, strict=True):
                self._on_row(number, row)
        return True

    def _check_lines(self, block: Block) -> None:
        for number, line, length in lines_of(block):
            if self._problem_count >= MAX_COUNTED_PROBLEMS:
                self._stopped_at, self._done = number, True
                return
            if length > self._max_line_bytes:
                self._lines += 1
                self._add_problem(number, f"is {length} bytes long; a row may have {self._max_line_bytes}")
            elif line and not line.isspace():
                self._lines += 1
                if self._find_other_layout(line):
                    return
                self._check_line(number, line)

    def _find_other_layout(self, line: bytes) -> bool:
        """Look whether the second line shows that the file is no JSON lines at all; then one problem says it."""
        if self._lines != 2 or self._opening is None:
            return False
        number, first_line = self._opening
        reason = other_layout(first_line, line)
        if reason is None:
            return False
        self._problems[-1:] = [Problem(number, reason)]
        self._done = True
        return True

    def _check_line(self, number: int, line: bytes) -> None:
        try:
            row = parse_row(line)
        except RefusedError as error:
            self._add_problem(number, str(error))
            self._opening = (number, line) if self._lines == 1 else self._opening
            return
        if self._format and (reasons := self._format.check_row(row)):
            for reason in reasons[:MAX_PROBLEMS_PER_ROW]:
                self._add_problem(number, reason)
            return
        self._rows += 1
        if self._on_row:
            self._on_row(number, row)

    def _add_problem(self, line: int, reason: str) -> None:
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
