"""JSON bodies: bounded before they are parsed, and free of what no database, UTF-8 writer or sum takes."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, cast

from service.kit.errors import InvalidRequest

MAX_ELEMENTS = 16_384
"""The most values of a body, those inside lists and objects counted: what this many cost is the bound of a request."""
MAX_DEPTH = 128
"""How deep lists and objects may lie in each other."""


class TooManyElements(InvalidRequest):
    """The body has more values than a request may have."""

    def __init__(self) -> None:
        super().__init__(
            f"The JSON body has more than {MAX_ELEMENTS} values (the elements of its lists and objects together), the "
            "most for a request. Send data in a file: POST /v1/files."
        )


class TooDeep(InvalidRequest):
    """The body's lists and objects are nested deeper than a request's may be."""

    def __init__(self) -> None:
        super().__init__(f"The JSON body is nested deeper than {MAX_DEPTH} lists and objects, the most for a request.")


def parse_body(body: bytes) -> tuple[Any, int]:
    """Return what a body says, and an upper bound of how many values it has.

    Raises JSONDecodeError, UnicodeDecodeError, RecursionError, ValueError (a number of thousands of digits) or
    InvalidRequest.
    """
    if b"\0" in body:  # no UTF-8 JSON has one, every other encoding of it has
        raise InvalidRequest("The body must be JSON in UTF-8; it has zero bytes, as UTF-16 and UTF-32 have.")
    elements = count_elements(body)
    if elements > MAX_ELEMENTS:
        raise TooManyElements
    value = json.loads(body, object_pairs_hook=_make_object)
    refuse_unusable(value)
    return value, elements


def count_elements(body: bytes) -> int:
    """Return how many values a JSON text has, or more, without parsing it; exact for well-formed text.

    Each value but the first follows a comma or opens a list or an object. Those inside of strings are left out, which
    needs no look at single characters: what is escaped is taken out, then every second piece between quotes is
    outside. That holds for UTF-8 alone.
    """
    upper = _count_marks(body)
    if upper <= MAX_ELEMENTS:
        return upper
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    # Each string is a value or the name of one, and must not be cut out one by one if there are too many of them.
    if bare.count(b'"') > 4 * MAX_ELEMENTS:
        return bare.count(b'"') // 4
    return _count_marks(b" ".join(bare.split(b'"')[::2]))


def _count_marks(text: bytes) -> int:
    return 1 + text.count(b",") + text.count(b"[") + text.count(b"{")


def refuse_unusable(value: object) -> None:
    """Raise InvalidRequest, naming the place, if a JSON value holds NUL, half a surrogate pair, NaN or Infinity, in a
    key or in a value, or is nested too deeply.

    Places are put together only for a value that is refused: the place of each would cost more than the body.
    """
    waiting: list[tuple[object, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if _find_fault(item) is not None:
            _raise_with_place(value)
        if isinstance(item, (dict, list)):
            if depth > MAX_DEPTH:
                raise TooDeep
            children = cast("dict[str, Any]", item).values() if isinstance(item, dict) else cast("list[Any]", item)
            waiting.extend((child, depth + 1) for child in children)


def _raise_with_place(value: object) -> None:
    """Look for the first fault again, with the way to it, and raise InvalidRequest for it."""
    waiting: list[tuple[str, object]] = [("", value)]
    while waiting:
        place, item = waiting.pop()
        reason = _find_fault(item)
        if reason is not None:
            raise InvalidRequest(f"{place or 'The body'}: {reason}.", param=place or None)
        if isinstance(item, dict):
            waiting.extend((f"{place}.{key}".lstrip("."), child) for key, child in cast("dict[str, Any]", item).items())
        elif isinstance(item, list):
            waiting.extend((f"{place}.{at}".lstrip("."), child) for at, child in enumerate(cast("list[Any]", item)))


def _find_fault(item: object) -> str | None:
    """Return what is wrong with a text, a number, or a key of an object; None if nothing is."""
    if isinstance(item, float):
        return None if math.isfinite(item) else "is not a finite number"
    if isinstance(item, dict):
        return next(filter(None, map(_find_fault_of_text, cast("dict[str, Any]", item))), None)
    return _find_fault_of_text(item) if isinstance(item, str) else None


def _find_fault_of_text(text: str) -> str | None:
    if "\0" in text:
        return "has a NUL character (\\u0000); remove it"
    if not text.isascii() and not _is_encodable(text):
        return "has half of a surrogate pair (a \\ud8… escape needs its second half); remove it"
    return None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        refuse_unusable(twice)  # what names a place must be text that an answer can have
        name = twice[:64]
        raise InvalidRequest(f"The body has the key '{name}' twice in one object: send it once.", param=name)
    return value
