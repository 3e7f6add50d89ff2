"""Many good lines at once: what `parsing` and the row formats find line by line, here at the speed of C.

It says yes or "I do not know", never no. A block of lines that gets no yes is looked at again, line by line, by the
exact checks, which alone say what is wrong. Keys given twice are found by counting: what orjson dropped took its
quotes along, so the strings that are left have fewer quotes than the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, cast

import orjson

from burnish.datasets.base import Row, RowFormat
from burnish.datasets.lines import Block
from burnish.datasets.parsing import MAX_DEPTH, has_long_number

_CONTAINERS = (dict, list)
_values: Callable[[Row], Iterable[Any]] = dict[str, Any].values


def good_rows(block: Block, row_format: RowFormat | None) -> list[Row] | None:
    """Return the rows of whole lines if each is surely good; None if some may not be. Empty lines are passed over."""
    data = block.data
    try:
        rows = cast("list[Row]", list(map(orjson.loads, filter(None, block.lines))))
    except orjson.JSONDecodeError:
        return None
    if not set(map(type, rows)) <= {dict}:
        return None
    if row_format is not None and _all_plain(rows, data, row_format):
        return rows
    if not _all_sound(rows, data):
        return None
    return rows if row_format is None or not any(map(row_format.check_row, rows)) else None


def _all_plain(rows: list[Row], data: bytes, row_format: RowFormat) -> bool:
    """Return whether all rows have the plainest form of their format: no numbers, nothing deep, every string known."""
    texts: list[str] = []
    strings = 0
    for row in rows:
        plain_count = row_format.count_plain_strings(row, texts)
        if not plain_count:
            return False
        strings += plain_count
    return _adds_up("".join(texts), strings, data)


def _all_sound(rows: list[Row], data: bytes) -> bool:
    """Return whether all rows are what `parse_row` would return for their lines, by walking down level by level."""
    level: list[Any] = cast("list[Any]", rows)
    strings = 0
    texts: list[str] = []
    scalars = False
    for _ in range(MAX_DEPTH):
        objects = cast("list[Row]", [value for value in level if type(value) is dict])
        keys: list[str] = list(chain.from_iterable(objects))
        values: list[Any] = list(chain.from_iterable(map(_values, objects)))
        if len(objects) < len(level):
            lists = cast("list[list[Any]]", [value for value in level if type(value) is list])
            values.extend(chain.from_iterable(lists))
        here = [value for value in values if type(value) is str]
        strings += len(keys) + len(here)
        texts += keys
        texts += here
        level = [] if len(here) == len(values) else [value for value in values if type(value) in _CONTAINERS]
        scalars = scalars or len(here) + len(level) < len(values)
        if not level:
            return _adds_up("".join(texts), strings, data) and not (scalars and has_long_number(data))
    return False


def _adds_up(text: str, strings: int, data: bytes) -> bool:
    """Return whether the strings are all that the bytes hold, and none has a NUL."""
    # A quote may be written as \u0022. Where that is only a backslash before the letters u0022, the bytes seem to have
    # more quotes than they do, which can make this a no but never a yes.
    quotes = data.count(b'"') + data.count(b"\\u0022")
    return 2 * strings + text.count('"') == quotes and "\0" not in text
