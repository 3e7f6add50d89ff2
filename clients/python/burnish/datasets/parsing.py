"""One line of JSONL to one row, as strictly as the rest of the system needs it.

orjson does the work. It lets four things pass that hurt later, and each is found by a test that costs little
on a good line: keys given twice (what was dropped took its quotes along, so the row written back has fewer),
integers beyond 64 bits (they would turn into floats), escaped NULs (databases refuse them), and deep nesting
(recursive readers fail on it).
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

import orjson

from burnish.datasets.base import Row
from burnish.datasets.wording import json_kind, quote_key

MAX_DEPTH = 100
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What editors on Windows put at the start of a file in UTF-8: accepted there, and no part of the first row."""
_DIGITS_TO_ZERO = bytes.maketrans(b"0123456789", b"0000000000")
_LONG_NUMBER = b"0" * 19
_INTEGERS = range(-(2**63), 2**63)

_OTHER_FILES = {
    b"\x1f\x8b": "gzip data stands where the rows should begin: compress the file once",
    b"\xfd7zXZ\x00": "the file is compressed with xz: use gzip or zstd, or upload it uncompressed",
    b"\x28\xb5\x2f\xfd": "zstd data stands where the rows should begin: compress the file once",
    b"BZh91AY&SY": "the file is compressed with bzip2: use gzip or zstd, or upload it uncompressed",
    b"PK\x03\x04": "the file is a zip archive (or an office document): upload the file inside it, or its text",
    b"%PDF-": "the file is a PDF: upload its text",
    b"{\\rtf": "the file is RTF: save it as plain text",
    b"\x89PNG": "the file is an image",
    b"\xff\xd8\xff": "the file is an image",
    b"\x7fELF": "the file is a program",
    b"SQLite format 3\x00": "the file is an SQLite database: export it as JSONL",
    b"PAR1": "Parquet data stands where the rows should begin: upload the Parquet file itself",
    b"ARROW1": "the file is Arrow: convert it to JSONL",
    b"\xff\xfe": "the file is UTF-16: save it as UTF-8",
    b"\xfe\xff": "the file is UTF-16: save it as UTF-8",
}
OTHER_FILE_BYTES = max(map(len, _OTHER_FILES))
"""How much of a file's start `other_file` looks at."""

_HINTS = (
    (re.compile(r"-?(NaN|Infinity)"), "NaN and Infinity are not JSON: use null or leave the key out"),
    (re.compile(r"(True|False|None)"), "write true, false and null as JSON does, in small letters"),
    (re.compile(r"'"), "JSON takes double quotes, not single ones"),
    (re.compile(r"//|/\*"), "JSON has no comments"),
)


class RefusedError(ValueError):
    """The line is not a row; the message says why."""


def other_file(start: bytes) -> str | None:
    """Say what the first bytes of a file give away, if it is not text in UTF-8."""
    return next((reason for magic, reason in _OTHER_FILES.items() if start.startswith(magic)), None)


def parse_row(line: bytes) -> Row:
    """Return the JSON object on a line (without its end). Raises RefusedError."""
    try:
        row: object = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RefusedError(_json_fault_reason(line, error)) from None
    if not isinstance(row, dict):
        raise RefusedError(_not_an_object(row))
    row = cast("Row", row)
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH and is_too_deep(row):
        raise RefusedError(f"is nested deeper than {MAX_DEPTH} levels")
    escaped_quotes = 0
    if b"\\u00" in line:
        escaped_quotes = line.count(b"\\u0022")
        _check_nuls(row)
    if line.count(b'"') + escaped_quotes != orjson.dumps(row).count(b'"') or has_long_number(line):
        _check_slowly(line)
    return row


def has_long_number(data: bytes) -> bool:
    """Return whether there are digits for a number beyond 64 bits, be it in a text."""
    return _LONG_NUMBER in data.translate(_DIGITS_TO_ZERO)


def _json_fault_reason(line: bytes, error: orjson.JSONDecodeError) -> str:
    if line.startswith(BYTE_ORDER_MARK):
        return "begins with a byte order mark, which only a file's first line may: join files without theirs"
    if b"\0" in line:
        return f"has a NUL byte at byte {line.index(0) + 1}: remove it, or save the file as UTF-8"
    try:
        text = line.decode()
    except UnicodeDecodeError as fault:
        byte = f"byte 0x{line[fault.start]:02x} at byte {fault.start + 1}"
        return f"is not UTF-8 ({byte}): save the file as UTF-8"
    if error.msg.startswith("depth"):
        return f"is nested deeper than {MAX_DEPTH} levels"
    # A line is one line, but an item of a JSON array may have several.
    where = f"its line {error.lineno}, " if error.lineno > 1 else ""
    reason = f"is not JSON at {where}column {error.colno}: {error.msg}"
    hint = _json_fault_hint(text, error)
    return f"{reason} ({hint})" if hint else reason


def _json_fault_hint(text: str, error: orjson.JSONDecodeError) -> str | None:
    if "surrogate" in error.msg:
        return "a \\ud8… escape needs its second half"
    if text.rstrip().endswith(",") and error.pos == len(text.rstrip()) - 1:
        return "one row a line, without commas between the rows"
    if text.strip() in ("[", "]"):
        return "one row a line, without brackets around the rows"
    # orjson points behind the sign of -Infinity.
    at = error.pos - 1 if text[error.pos - 1 : error.pos] == "-" else error.pos
    return next((hint for pattern, hint in _HINTS if pattern.match(text, max(at, 0))), None)


def _not_an_object(value: object) -> str:
    hint = ": write one object a line, without a list around them" if isinstance(value, list) else ""
    return f"is {json_kind(cast('object', value))}, not a JSON object{hint}"


def is_too_deep(value: object) -> bool:
    """Return whether a JSON value is nested deeper than `MAX_DEPTH` levels."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _child_values(value)]
        if not level:
            return False
    return any(isinstance(value, (dict, list)) for value in level)


def _child_values(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(cast("dict[str, object]", value).values())
    return cast("list[object]", value) if isinstance(value, list) else []


def _check_nuls(row: Row) -> None:
    level: list[object] = [row]
    while level:
        keys = (key for value in level if isinstance(value, dict) for key in cast("dict[str, object]", value))
        level.extend(keys)
        if any(isinstance(value, str) and "\0" in value for value in level):
            raise RefusedError("has an escaped NUL (\\u0000): remove it")
        level = [child for value in level for child in _child_values(value)]


def _check_slowly(line: bytes) -> None:
    """Look for what the quick tests suspect. Raises RefusedError if they are right."""
    json.loads(line, object_pairs_hook=_reject_duplicate_keys, parse_int=_parse_integer)


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> Row:
    row: Row = {}
    for key, value in pairs:
        if key in row:
            raise RefusedError(f"has the key {quote_key(key)} twice in one object")
        row[key] = value
    return row


def _parse_integer(digits: str) -> int:
    if len(digits) > 20 or int(digits) not in _INTEGERS:
        raise RefusedError(f"has the number {digits[:24]}…, beyond 64 bits: write it as a string")
    return int(digits)
