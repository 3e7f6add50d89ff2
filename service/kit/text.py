"""Text from outside that no database or UTF-8 writer takes: NUL and lone surrogates."""

from __future__ import annotations

from typing import Any, cast

from service.kit.errors import InvalidRequest


def refuse_unstorable(value: object, place: str = "") -> None:
    """Raise InvalidRequest, naming the place, where a JSON value holds such text, in a key or in a value."""
    waiting = [(place, value)]
    while waiting:
        where, item = waiting.pop()
        if isinstance(item, str):
            _check(where, item)
        elif isinstance(item, dict):
            for key, child in cast("dict[str, Any]", item).items():
                _check(where, key)
                waiting.append((f"{where}.{key}" if where else key, child))
        elif isinstance(item, list):
            waiting.extend((where, child) for child in cast("list[Any]", item))


def _check(where: str, text: str) -> None:
    if "\0" in text:
        reason = "has a NUL character (\\u0000)"
    elif any("\ud800" <= char <= "\udfff" for char in text):
        reason = "has half of a surrogate pair (a \\ud8… escape needs its second half)"
    else:
        return
    raise InvalidRequest(f"{where or 'The body'}: {reason}; remove it.", param=where or None)
