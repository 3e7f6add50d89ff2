"""A row as it came, which remembers what a converter read of it: the rest is left out, and is reported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from burnish.datasets.converters.arguments import ArgumentsObject
from burnish.datasets.wording import quote_key


class SourceRow(dict[str, Any]):
    """An object of a row. A key counts as read once its value was asked for by `[]` or `get`.

    An object of which no key was read, but which itself was, has been taken as a whole.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__({key: _watch_value(value) for key, value in values.items()})
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self._read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, which counts as read, or the default."""
        if key not in self:
            return default
        return self[key]

    def leave_out(self, *keys: str) -> None:
        """Count keys as not read: a look at them showed that they have no place."""
        self._read.difference_update(keys)

    def take_unread(self) -> dict[str, Any]:
        """Return what stands under the keys at the top that were not read; now they count as read."""
        return {key: self[key] for key in self if key not in self._read}

    def unread_keys(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield the places of the keys that were not read, such as `messages[].id`, and what stands there.

        Nothing is lost with empty texts, lists and objects: they are passed over.
        """
        for key, value in self.items():
            place = f"{prefix}{quote_key(key)}"
            if key not in self._read:
                if value not in ("", [], {}, None):
                    yield place, value
            else:
                yield from _unread_inside(value, place)

    @property
    def touched(self) -> bool:
        """Whether any key was read by itself."""
        return bool(self._read)


def peek(row: dict[str, Any], key: str) -> Any:
    """Return the value of a key without counting it as read."""
    return dict[str, Any].get(row, key)


def _watch_value(value: Any) -> Any:
    if isinstance(value, dict) and not isinstance(value, ArgumentsObject):
        return SourceRow(cast("dict[str, Any]", value))
    return [_watch_value(child) for child in cast("list[Any]", value)] if isinstance(value, list) else value


def _unread_inside(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, SourceRow):
        if value.touched:
            yield from value.unread_keys(f"{place}.")
    elif isinstance(value, list):
        for child in cast("list[Any]", value):
            yield from _unread_inside(child, f"{place}[]")
