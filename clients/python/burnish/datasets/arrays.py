"""The items of a JSON array, cut out of a stream: memory holds one item at most, whatever the array does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from burnish.datasets.errors import UnreadableError
from burnish.datasets.lines import MAX_LINE_BYTES

_STRUCTURE = re.compile(rb'["\[\]{},]')
_IN_STRING = re.compile(rb'["\\]')


@dataclass(frozen=True, slots=True)
class ArrayItem:
    """One item: its number and line, both from 1, its bytes (nothing of one that is too long) and their count."""

    number: int
    line: int
    content: bytes
    length: int


class ArraySplitter:
    """Cuts chunks of bytes, however they fall, into the items of the array that they hold.

    Only strings and brackets are followed; whether an item is JSON is for its reader to find.
    """

    def __init__(self, max_item_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_item_bytes
        self._depth = 0
        self._in_string = self._escaped = self._closed = False
        self._item = bytearray()
        self._length = 0
        self._number = 0
        self._line = 1

    def feed(self, chunk: bytes) -> Iterator[ArrayItem]:
        """Yield the items that this chunk completes. Raises UnreadableError if there is no array."""
        start = position = 0
        while True:
            mark = self._next_mark(chunk, position)
            if mark is None:
                break
            position = mark + 1
            token = chunk[mark : mark + 1]
            if self._depth == 0:
                self._open_array(chunk[start : mark + 1])
                start = position
            elif self._depth == 1 and token in b",]":
                self._hold_piece(chunk[start:mark])
                yield from self._take_item(last=token == b"]")
                start = position
            elif token in b"[{":
                self._depth += 1
            elif token in b"]}" and self._depth > 1:
                self._depth -= 1
        self._hold_piece(chunk[start:])

    def finish(self) -> None:
        """Say that nothing follows. Raises UnreadableError if the array is not closed, or something comes after it."""
        if not self._closed:
            raise UnreadableError(f"the file ends inside the JSON array, in item {self._number + 1}: it was cut short")
        self._check_rest(bytes(self._item))

    def _next_mark(self, chunk: bytes, position: int) -> int | None:
        """Return the place of the next bracket or comma outside of strings."""
        while position < len(chunk):
            if self._escaped:
                self._escaped = False
                position += 1
                continue
            match = (_IN_STRING if self._in_string else _STRUCTURE).search(chunk, position)
            if match is None:
                return None
            position = match.end()
            if match[0] == b'"':
                self._in_string = not self._in_string
            elif match[0] == b"\\":
                self._escaped = True
            else:
                return match.start()
        return None

    def _open_array(self, before: bytes) -> None:
        self._check_rest(bytes(self._item) + before[:-1])
        if self._closed or before[-1:] != b"[":
            self._check_rest(before[-1:])
        self._item.clear()
        self._length = 0
        self._line += before.count(b"\n")
        self._depth = 1

    def _check_rest(self, outside: bytes) -> None:
        if outside.strip():
            where = "after the JSON array's closing bracket" if self._closed else "before the JSON array"
            raise UnreadableError(f"line {self._line}: there is something {where}")

    def _hold_piece(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length <= self._max:
            self._item += piece
        else:
            self._line += self._item.count(b"\n") + piece.count(b"\n")
            self._item.clear()

    def _take_item(self, *, last: bool) -> Iterator[ArrayItem]:
        content = bytes(self._item)
        ahead = len(content) - len(content.lstrip())
        line = self._line + content.count(b"\n", 0, ahead)
        if not last or content.strip() or self._number or self._length > self._max:
            self._number += 1
            yield ArrayItem(self._number, line, content.strip(), self._length)
        self._line += content.count(b"\n")
        self._item.clear()
        self._length = 0
        if last:
            self._depth, self._closed = 0, True
