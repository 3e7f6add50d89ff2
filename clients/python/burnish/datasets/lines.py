"""Bytes cut into lines, as a stream: memory holds a block of lines, or one line, at most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from burnish.datasets.parsing import BYTE_ORDER_MARK, OTHER_FILE_BYTES

MAX_LINE_BYTES = 8 << 20
MAX_ROWS = 100_000_000
"""The most rows of one file that are read."""
SHORT_LINES_ALLOWED = 1_000_000
"""So many lines may be as short as they like; of more, each has `MIN_LINE_BYTES` on average.

A line costs time however short it is, and compression makes millions of the shortest out of nothing.
"""
MIN_LINE_BYTES = 8
BLOCK_BYTES = 64 << 10
"""About how much is looked at together: more does not fit a processor's nearest memory, and gets slower."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, without the newline of the last one; or a single line that is too long, of which the start is left.

    `first` is the number of the first line, from 1; `length` the size in bytes that the lines really have.
    """

    first: int
    data: bytes
    lines: list[bytes]
    length: int


class LineBudget:
    """Says when a file has more lines than a dataset of its size has."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._lines = self._bytes = 0

    def count_block(self, block: Block, rows: int) -> str | None:
        """Count a block in; return why nothing more should be read, if so. `rows` are those of the file so far."""
        self._lines += len(block.lines)
        self._bytes += block.length + 1
        if rows > self._max_rows:
            return f"it has more than {self._max_rows} rows, the most that are read: split it into several files"
        if self._lines > SHORT_LINES_ALLOWED and self._bytes < MIN_LINE_BYTES * self._lines:
            return (
                f"it has more than {SHORT_LINES_ALLOWED} lines with less than {MIN_LINE_BYTES} bytes each on average: "
                "leave the blank and the empty ones out"
            )
        return None


class BlockSplitter:
    """Cuts chunks of bytes, however they fall, into blocks of whole lines; keeps one line at most.

    A byte order mark at the start of the file is dropped.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._next = 1
        self._tail = bytearray()
        self._tail_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[Block]:
        """Yield the blocks that the chunk completes."""
        start = 0
        if self._tail_bytes:
            start = chunk.find(b"\n") + 1
            self._hold_tail(chunk[: start - 1] if start else chunk)
            if not start:
                return
            yield self._take_tail()
        while end := self._end_of_block(chunk, start):
            data = chunk[start : end - 1]
            yield self._make_block(data, len(data))
            start = end
        self._hold_tail(chunk[start:])

    def finish(self) -> Iterator[Block]:
        """Yield the last line, if it lacks its newline."""
        if self._tail_bytes:
            yield self._take_tail()

    def _end_of_block(self, chunk: bytes, start: int) -> int:
        """Return the place behind the newline that ends the next block; 0 if the chunk has none."""
        return chunk.rfind(b"\n", start, start + BLOCK_BYTES) + 1 or chunk.find(b"\n", start + BLOCK_BYTES) + 1

    def _make_block(self, data: bytes, length: int) -> Block:
        if self._next == 1 and data.startswith(BYTE_ORDER_MARK):
            data, length = data.removeprefix(BYTE_ORDER_MARK), length - len(BYTE_ORDER_MARK)
        block = Block(self._next, data, data.split(b"\n"), length)
        self._next += len(block.lines)
        return block

    def _hold_tail(self, piece: bytes) -> None:
        self._tail_bytes += len(piece)
        if self._tail_bytes <= self._max:
            self._tail += piece
        else:
            self._tail += piece[:OTHER_FILE_BYTES]
            del self._tail[OTHER_FILE_BYTES:]

    def _take_tail(self) -> Block:
        block = self._make_block(bytes(self._tail), self._tail_bytes)
        self._tail.clear()
        self._tail_bytes = 0
        return block


class LineSplitter:
    """Cuts chunks of bytes, however they fall, into numbered lines."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._blocks = BlockSplitter(max_line_bytes)

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes, int]]:
        """Yield number (from 1), content and length in bytes of each line that the chunk completes.

        The content is without its newline; of a line that is too long perhaps only the first bytes are left.
        """
        for block in self._blocks.feed(chunk):
            yield from lines_of(block)

    def finish(self) -> Iterator[tuple[int, bytes, int]]:
        """Yield the last line, if it lacks its newline."""
        for block in self._blocks.finish():
            yield from lines_of(block)


def lines_of(block: Block) -> Iterator[tuple[int, bytes, int]]:
    """Yield number, content and length of each line of a block; see `LineSplitter.feed`."""
    if block.length != len(block.data):
        yield block.first, block.data, block.length
        return
    for number, line in enumerate(block.lines, block.first):
        yield number, line, len(line)
