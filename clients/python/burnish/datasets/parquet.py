"""Parquet as JSON lines: row by row, a batch in memory at a time. A null in a row or an object means: no such key."""

from __future__ import annotations

import importlib
import math
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import orjson

from burnish.datasets.absence import drop_null_keys
from burnish.datasets.errors import UnreadableError
from burnish.datasets.parsing import MAX_DEPTH
from burnish.datasets.wording import quote_key

_BATCH_ROWS = 64
_MAX_COLUMNS = 1000
_MAX_ROW_GROUPS = 100_000
_MAX_FOOTER_BYTES = 16 << 20
"""What describes the file is read as a whole before its first row is."""
_PIECE_BYTES = 1 << 18
_BUFFER_BYTES = 1 << 20
_END = b"PAR1"
_TAIL_BYTES = 8
_LISTS = ("is_list", "is_large_list", "is_fixed_size_list")
_PLAIN = ("is_string", "is_large_string", "is_boolean", "is_integer", "is_floating", "is_null")


def check_ends(size: int, tail: bytes) -> str | None:
    """Say what is wrong with a file that begins as Parquet, by its size and its last eight bytes."""
    if size < len(_END) + _TAIL_BYTES or tail[-4:] != _END:
        return "the Parquet file has no end: it was cut short; send it again"
    footer = int.from_bytes(tail[:4], "little")
    if footer > size - len(_END) - _TAIL_BYTES:
        return "the Parquet file is damaged: its footer is said to be longer than the file"
    if footer > _MAX_FOOTER_BYTES:
        return (
            f"the Parquet file has a footer of {footer} bytes; it may have {_MAX_FOOTER_BYTES}: write it with larger "
            "row groups, or fewer columns"
        )
    return None


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rows of a Parquet file, which must be seekable, as JSON lines, several at once.

    Raises UnreadableError, with the row if there is one.
    """
    arrow, parquet = _import_arrow("pyarrow"), _import_arrow("pyarrow.parquet")
    _check_footer(file)
    try:
        source = parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        _check_shape(source.metadata.num_columns, source.metadata.num_row_groups)
        _check_type("", list(source.schema_arrow), arrow.types, depth=1)
        number, pending_lines = 0, bytearray()
        for batch in source.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            for index in range(batch.num_rows):
                number += 1
                pending_lines += _encode_row(batch, index, number)
                if len(pending_lines) >= _PIECE_BYTES:
                    yield bytes(pending_lines)
                    pending_lines.clear()
        yield bytes(pending_lines)
    except arrow.ArrowMemoryError:
        raise UnreadableError("one piece of the Parquet file takes more memory than reading it may") from None
    except (arrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        message = " ".join(str(error).split())[:200]
        raise UnreadableError(f"the Parquet file cannot be read ({message}): write it again") from None


def _check_footer(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    file.seek(0)
    if tail[-4:] == _END and (reason := check_ends(size, tail)):  # for any other end, the library's message says more
        raise UnreadableError(reason)


def _check_shape(columns: int, row_groups: int) -> None:
    if columns > _MAX_COLUMNS:
        raise UnreadableError(
            f"it has {columns} columns, those inside of lists and objects counted; it may have {_MAX_COLUMNS}"
        )
    if row_groups > _MAX_ROW_GROUPS:
        raise UnreadableError(f"it has {row_groups} row groups; it may have {_MAX_ROW_GROUPS}: write larger ones")


def _import_arrow(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UnreadableError('it is Parquet, which needs a package more: pip install "burnish[formats]"') from None


def _check_type(place: str, fields: list[Any], types: Any, *, depth: int) -> None:
    """Refuse what no row can hold, and names given twice, before a row is read. Raises UnreadableError."""
    if depth > MAX_DEPTH:
        raise UnreadableError(f"its columns are nested deeper than {MAX_DEPTH} levels")
    names = Counter(field.name for field in fields)
    for field in fields:
        here = f"{place}.{quote_key(field.name)}" if place else quote_key(field.name)
        if names[field.name] > 1:
            raise UnreadableError(f"it has the column {here} twice")
        _check_field(here, field.type, types, depth)


def _check_field(place: str, kind: Any, types: Any, depth: int) -> None:
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        _check_type(place, list(kind), types, depth=depth + 1)
    elif any(getattr(types, name)(kind) for name in _LISTS):
        if depth > MAX_DEPTH:
            raise UnreadableError(f"its columns are nested deeper than {MAX_DEPTH} levels")
        _check_field(f"{place}[]", kind.value_type, types, depth + 1)
    elif not any(getattr(types, name)(kind) for name in _PLAIN):
        raise UnreadableError(
            f"its column {place} has the type {str(kind)[:60]}: a row holds texts, numbers, true and false, lists "
            "and objects (structs)"
        )


def _encode_row(batch: Any, index: int, number: int) -> bytes:
    try:
        row = {name: batch.column(place)[index].as_py() for place, name in enumerate(batch.schema.names)}
        _reject_non_finite(row, number)
        # Every object of a column has all of the column's keys: a null is one that its row does not have.
        return orjson.dumps(drop_null_keys(row), option=orjson.OPT_APPEND_NEWLINE)
    except UnicodeDecodeError:
        raise UnreadableError(f"row {number}: has text that is not UTF-8") from None
    except orjson.JSONEncodeError as error:
        raise UnreadableError(f"row {number}: cannot be written as JSON ({error})") from None


def _reject_non_finite(value: Any, number: int) -> None:
    """Refuse NaN and infinities, which the encoder would write as null."""
    if isinstance(value, dict):
        for child in cast("dict[str, Any]", value).values():
            _reject_non_finite(child, number)
    elif isinstance(value, list):
        for child in cast("list[Any]", value):
            _reject_non_finite(child, number)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UnreadableError(f"row {number}: has NaN or Infinity, which are not JSON: use null")
