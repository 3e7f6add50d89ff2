"""Conversion of whole files: rows of another format in, checked rows of a method out, as a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import cast

import orjson

from burnish.datasets import ROW_FORMATS, ItemRows
from burnish.datasets.absence import drop_null_keys
from burnish.datasets.base import Row
from burnish.datasets.converters import CONVERTERS, PLAIN_TEXT, detect_converter
from burnish.datasets.converters.arguments import loads_keeping_arguments
from burnish.datasets.converters.lost_meaning import refuse_lost_meaning
from burnish.datasets.converters.source import SourceRow
from burnish.datasets.converters.targets import name_unused_parts, rows_of
from burnish.datasets.errors import NotConvertibleError, UnreadableError
from burnish.datasets.files import is_text
from burnish.datasets.jsonl import MAX_PROBLEMS
from burnish.datasets.layouts import name_list_of_rows
from burnish.datasets.lines import MAX_LINE_BYTES
from burnish.datasets.reading import Item, read_documents, read_items
from burnish.datasets.wording import quote_key

_MAX_LEFT_OUT = 200
"""So many keys are counted each by itself; keys that are different in every row have one count."""


class Conversion:
    """One conversion: iterate over `lines`, then read what came of it.

    `method` is a name in `ROW_FORMATS`; `source` one in `CONVERTERS`, found out at the first row if None. A row
    that cannot be converted, or is not a good row of the method afterwards, is left out and listed in `refused` (the
    first 20: place and reason). `read` and `written` count rows; one row read may make several. `left_out` counts the
    keys of converted rows that have no place in the rows written, by their places, such as `messages[].id`.
    """

    def __init__(self, method: str, source: str | None = None) -> None:
        self.method = method
        self.source = source
        self.read = self.written = self.refused_count = 0
        self.refused: list[tuple[str, str]] = []
        self.left_out: Counter[str] = Counter()

    def lines(self, filename: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the lines to write. Raises UnreadableError if the file cannot be read on, or its format is unknown.

        A name that ends with `.txt` (before `.gz` or `.zst`) is plain text, read as documents.
        """
        plain = is_text(filename)
        if plain:
            if self.source not in (None, PLAIN_TEXT):
                raise UnreadableError(f"{filename} is plain text, not rows of {self.source}")
            self.source = PLAIN_TEXT
        for item in read_documents(chunks) if plain else read_items(chunks):
            self.read += 1
            try:
                rows = self._convert_item(item)
            except NotConvertibleError as error:
                self._record_refusal(item.place, str(error))
                continue
            for row in rows:
                self.written += 1
                yield row

    def _convert_item(self, item: Item) -> list[bytes]:
        if item.row is None:
            raise NotConvertibleError(item.reason)
        original = loads_keeping_arguments(item.content.decode()) if b'"arguments"' in item.content else item.row
        values = drop_null_keys(original)
        self.source = self.source or _detect_source(values)
        converter = CONVERTERS[self.source]
        if not converter.matches_row(values):
            raise NotConvertibleError(f"is not a row of {self.source}: its keys are {_list_row_keys(values)}")
        row = SourceRow(values)
        example = converter.convert_row(row)
        rows = rows_of(example, self.method)
        # A grader may use any key, so its rows keep what the prompt has no place for.
        carries_keys = isinstance(ROW_FORMATS[self.method], ItemRows)
        if self.source != PLAIN_TEXT:
            refuse_lost_meaning(row.unread_keys(), carries_keys=carries_keys)
        if carries_keys:
            item_keys = row.take_unread()
            rows = [{**item_keys, **new_row} for new_row in rows]
        left_out = [*(place for place, _ in row.unread_keys()), *name_unused_parts(example, self.method)]
        lines = [self._encode_checked_row(new_row) for new_row in rows]
        self._count_left_out(left_out)
        return lines

    def _count_left_out(self, places: list[str]) -> None:
        for place in places:
            has_count = place in self.left_out or len(self.left_out) < _MAX_LEFT_OUT
            self.left_out[place if has_count else "other keys"] += 1

    def _encode_checked_row(self, row: Row) -> bytes:
        reasons = ROW_FORMATS[self.method].check_row(row)
        if reasons:
            raise NotConvertibleError("; ".join(reasons[:3]))
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        if len(line) > MAX_LINE_BYTES:
            raise NotConvertibleError(f"becomes {len(line)} bytes long; a row may have {MAX_LINE_BYTES}")
        return line

    def _record_refusal(self, place: str, reason: str) -> None:
        self.refused_count += 1
        if len(self.refused) < MAX_PROBLEMS:
            self.refused.append((place, reason))


def _detect_source(row: Row) -> str:
    source = detect_converter(row)
    if source is None:
        for key, value in row.items():
            if (
                isinstance(value, list)
                and value
                and all(isinstance(item, dict) for item in cast("list[object]", value))
            ):
                raise UnreadableError(name_list_of_rows(key))
        raise UnreadableError(
            f"The format of the rows is not known (the first has the keys {_list_row_keys(row)}); "
            f"name it, if it is one of {', '.join(CONVERTERS)}."
        )
    return source


def _list_row_keys(row: Row) -> str:
    return ", ".join(quote_key(key) for key in list(row)[:12]) or "none"
