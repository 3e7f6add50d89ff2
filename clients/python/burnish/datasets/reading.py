"""The rows of files in other formats than ours: JSON lines, a JSON array, or plain text, each read as a stream."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from burnish.datasets.arrays import ArraySplitter
from burnish.datasets.base import Row
from burnish.datasets.errors import UnreadableError
from burnish.datasets.layouts import other_layout
from burnish.datasets.lines import MAX_LINE_BYTES, LineSplitter
from burnish.datasets.parsing import BYTE_ORDER_MARK, OTHER_FILE_BYTES, RefusedError, other_file, parse_row
from burnish.datasets.text import TextChecker

DOCUMENT_END = "<|endoftext|>"
"""A line of plain text that holds nothing else ends a document."""
MAX_DOCUMENT_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """A row and its place, such as `line 3` or `item 3 (line 41)`; instead of a row perhaps why it is none."""

    place: str
    row: Row | None
    reason: str = ""
    content: bytes = b""
    """The JSON text of a row that was read from one."""


def read_items(chunks: Iterable[bytes]) -> Iterator[Item]:
    """Yield the rows of JSON lines, or of a JSON array if the first character is its bracket.

    Raises UnreadableError if reading cannot continue.
    """
    pieces = _strip_byte_order_mark(chunks)
    start = b""
    while not start.strip() and (piece := next(pieces, None)) is not None:
        start += piece
    if reason := other_file(start):
        raise UnreadableError(reason)
    whole = chain((start,), pieces)
    return _read_array(whole) if start.lstrip().startswith(b"[") else _read_lines(whole)


def read_documents(chunks: Iterable[bytes]) -> Iterator[Item]:
    """Yield plain text as rows `{"text"}`: a document each, those of more than a million characters in pieces.

    A document ends at a line that is `<|endoftext|>`; pieces are cut at line ends if there are any, and put
    together they are the document. Raises UnreadableError for what is not text in UTF-8.
    """
    documents = _Documents()
    number = 0
    for text in _decode_text(chunks):
        for document in documents.feed(text):
            number += 1
            yield Item(f"document {number}", {"text": document})
    for document in documents.finish():
        number += 1
        yield Item(f"document {number}", {"text": document})


def _strip_byte_order_mark(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes without a byte order mark of UTF-8, the first of them together, so that kinds show."""
    remaining_chunks = iter(chunks)
    start = b""
    for chunk in remaining_chunks:
        start += chunk
        if len(start) >= OTHER_FILE_BYTES:
            break
    yield start.removeprefix(BYTE_ORDER_MARK)
    yield from remaining_chunks


def _read_array(chunks: Iterable[bytes]) -> Iterator[Item]:
    splitter = ArraySplitter()
    for chunk in chunks:
        for item in splitter.feed(chunk):
            yield _parse_item(f"item {item.number} (line {item.line})", item.content, item.length)
    splitter.finish()


def _read_lines(chunks: Iterable[bytes]) -> Iterator[Item]:
    splitter = LineSplitter()
    opening: bytes | None = None
    count = 0
    for lines in chain((splitter.feed(chunk) for chunk in chunks), (splitter.finish(),)):
        for number, line, length in lines:
            if not line or line.isspace():
                continue
            count += 1
            if count == 2 and opening is not None and (reason := other_layout(opening, line)):
                raise UnreadableError(reason)
            item = _parse_item(f"line {number}", line, length)
            opening = line if count == 1 and item.row is None else opening
            yield item


def _parse_item(place: str, content: bytes, length: int) -> Item:
    if length > MAX_LINE_BYTES:
        return Item(place, None, f"is {length} bytes long; a row may have {MAX_LINE_BYTES}")
    try:
        return Item(place, parse_row(content), content=content)
    except RefusedError as error:
        return Item(place, None, str(error))


def _decode_text(chunks: Iterable[bytes]) -> Iterator[str]:
    checker = TextChecker()
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _strip_byte_order_mark(chunks):
            checker.feed(chunk)
            yield decoder.decode(chunk)
        yield decoder.decode(b"", True)
    except UnicodeDecodeError:
        pass  # the checker has found it, too, and has its line
    if problems := checker.finish().problems:
        raise UnreadableError(str(problems[0]))


class _Documents:
    """Cuts text into documents."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._characters = 0
        self._tail = ""

    def feed(self, text: str) -> Iterator[str]:
        """Yield the documents, and pieces of long ones, that this text completes."""
        *lines, self._tail = (self._tail + text).split("\n")
        for line in lines:
            yield from self._add_line(line + "\n")
        if len(self._tail) > MAX_DOCUMENT_CHARACTERS:
            line, self._tail = self._tail, ""
            yield from self._add_line(line)

    def finish(self) -> Iterator[str]:
        """Yield what is left."""
        yield from self._add_line(self._tail)
        yield from self._take_document()

    def _add_line(self, line: str) -> Iterator[str]:
        if line.strip() == DOCUMENT_END:
            if self._lines:
                self._lines[-1] = self._lines[-1].removesuffix("\n")
            yield from self._take_document()
            return
        if self._characters + len(line) > MAX_DOCUMENT_CHARACTERS:
            yield from self._take_document()
        self._lines.append(line)
        self._characters += len(line)

    def _take_document(self) -> Iterator[str]:
        text = "".join(self._lines)
        self._lines, self._characters = [], 0
        for start in range(0, len(text), MAX_DOCUMENT_CHARACTERS):
            piece = text[start : start + MAX_DOCUMENT_CHARACTERS]
            if not piece.isspace():
                yield piece
