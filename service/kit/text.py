"""What JSON texts can hold and no database, UTF-8 writer or sum takes: NUL, lone surrogates, NaN, Infinity."""

from __future__ import annotations

import math
from typing import Any, cast

from service.kit.errors import InvalidRequest


def refuse_unusable(value: object) -> None:
    """Raise InvalidRequest, naming the place, where a JSON value holds such a thing, in a key or in a value."""
    waiting = [("", value)]
    while waiting:
        where, item = waiting.pop()
        if isinstance(item, (str, float)):
            _check(where, item)
        elif isinstance(item, dict):
            for key, child in cast("dict[str, Any]", item).items():
                _check(where, key)
                waiting.append((f"{where}.{key}" if where else key, child))
        elif isinstance(item, list):
            waiting.extend(
                (f"{where}.{place}".lstrip("."), child) for place, child in enumerate(cast("list[Any]", item))
            )


def _check(where: str, item: str | float) -> None:
    reason = _of_text(item) if isinstance(item, str) else _of_number(item)
    if reason is not None:
        raise InvalidRequest(f"{where or 'The body'}: {reason}.", param=where or None)


def _of_number(number: float) -> str | None:
    return None if math.isfinite(number) else "is no number that can be reckoned with; give a finite one"


def _of_text(text: str) -> str | None:
    if "\0" in text:
        return "has a NUL character (\\u0000); remove it"
    if any("\ud800" <= char <= "\udfff" for char in text):
        return "has half of a surrogate pair (a \\ud8… escape needs its second half); remove it"
    return None
