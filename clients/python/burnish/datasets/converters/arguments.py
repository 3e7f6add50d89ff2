"""The arguments of function calls as the text that was given: never parsed and written again (`1.10` stays `1.10`)."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import orjson

from burnish.datasets.errors import NotConvertibleError
from burnish.datasets.wording import json_kind

# Inside of a JSON text these quotes would be escaped, so what matches is a key with an object as its value.
_ARGUMENTS = re.compile(r'"arguments"\s*:\s*(?=\{)')
_DECODER = json.JSONDecoder()


class ArgumentsObject(dict[str, Any]):
    """Arguments that were given as an object, and the text in which they were."""

    def __init__(self, text: str) -> None:
        super().__init__(orjson.loads(text))
        self.text = text


def loads_keeping_arguments(text: str) -> Any:
    """Return the value of a JSON text, in which a call's arguments that are an object become an `ArgumentsObject`.

    A call is an object with a name. The text is known to be good JSON, not too deep.
    """
    originals: dict[str, str] = {}
    pieces: list[str] = []
    end = 0
    for match in _ARGUMENTS.finditer(text):
        if match.start() < end:
            continue  # inside of other arguments
        _, stop = _DECODER.raw_decode(text, match.end())
        mark = f"\0{len(originals)}"
        originals[mark] = text[match.end() : stop]
        pieces += (text[end : match.end()], json.dumps(mark))
        end = stop
    if not originals:
        return orjson.loads(text)
    return _restore_arguments(orjson.loads("".join([*pieces, text[end:]])), originals)


def arguments_text(value: object, place: str) -> str:
    """Return a call's arguments as text; what was encoded twice is decoded once. Raises NotConvertibleError."""
    if value is None:
        return "{}"
    if isinstance(value, ArgumentsObject):
        return value.text
    if isinstance(value, dict):
        return orjson.dumps(value).decode()
    if not isinstance(value, str):
        raise NotConvertibleError(f"{place}: must be an object or the JSON text of one, not {json_kind(value)}")
    try:
        inner: object = orjson.loads(value)
        return inner if isinstance(inner, str) and isinstance(orjson.loads(inner), dict) else value
    except orjson.JSONDecodeError:
        return value  # the check of the row says what is wrong with it


def _restore_arguments(value: Any, originals: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _restore_value(key, child, cast("dict[str, Any]", value), originals)
            for key, child in cast("dict[str, Any]", value).items()
        }
    return (
        [_restore_arguments(child, originals) for child in cast("list[Any]", value)]
        if isinstance(value, list)
        else value
    )


def _restore_value(key: str, value: Any, parent: dict[str, Any], originals: dict[str, str]) -> Any:
    if key == "arguments" and isinstance(value, str) and value in originals:
        # Without a name it is something else, such as a property of a tool's parameters.
        arguments = ArgumentsObject(originals[value])
        return arguments if isinstance(parent.get("name"), str) else dict(arguments)
    return _restore_arguments(value, originals)
