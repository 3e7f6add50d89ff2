"""What counts as absent: a null under a key, wherever it stands, and an empty list of tools or of tool calls.

Writers of tables (`datasets.to_json`, Parquet) give every object all the keys of its column, and inference servers
write every field of a message: neither says anything by a null.
"""

from __future__ import annotations

from typing import Any, cast

_NO_LIST = ("tools", "tool_calls")


def is_absent(key: str, value: object) -> bool:
    """Return whether a key with this value says the same as no key."""
    return value is None or (value == [] and key in _NO_LIST)


def drop_null_keys(value: Any) -> Any:
    """Return a JSON value without the keys that have a null, at any depth; nulls in lists stay.

    Objects of other classes than `dict` stay as they are.
    """
    if type(value) is dict:
        items = cast("dict[str, Any]", value).items()
        return {key: drop_null_keys(child) for key, child in items if child is not None}
    if isinstance(value, list):
        return [drop_null_keys(child) for child in cast("list[Any]", value)]
    return value
