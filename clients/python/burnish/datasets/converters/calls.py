"""Function calls and tools as others write them: OpenAI's older `function_call` and `functions`, ShareGPT's texts."""

from __future__ import annotations

from typing import Any, cast

import orjson

from burnish.datasets.absence import drop_null_keys
from burnish.datasets.base import Row
from burnish.datasets.converters.arguments import arguments_text, loads_keeping_arguments
from burnish.datasets.errors import NotConvertibleError
from burnish.datasets.parsing import MAX_DEPTH, is_too_deep
from burnish.datasets.wording import json_kind


def options_of(row: Row) -> Row:
    """Return `tools` and `parallel_tool_calls` as far as a row has them. Raises NotConvertibleError.

    Tools are a list, or JSON text of one, bare or in the chat format; `functions` is their older name.
    """
    tools = [*_tool_list(row, "tools"), *_tool_list(row, "functions")]
    parallel = row.get("parallel_tool_calls")
    return ({"tools": tools} if tools else {}) | ({} if parallel is None else {"parallel_tool_calls": parallel})


def calls_of_text(text: str, place: str, waiting: list[str]) -> list[Row]:
    """Return the calls of ShareGPT's `function_call`: JSON text of an object with name and arguments, or several."""
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotConvertibleError(f"{place}.value: is not JSON of a function call: {error.msg}") from None
    if is_too_deep(value):
        raise NotConvertibleError(f"{place}.value: is nested deeper than {MAX_DEPTH} levels")
    value = loads_keeping_arguments(text)
    calls = cast("list[object]", value if isinstance(value, list) else [value])
    return [_make_call(call, f"{place}.value", place, index, waiting) for index, call in enumerate(calls)]


def calls_of_turn(turn: Row, place: str, waiting: list[str]) -> list[Row]:
    """Return the calls of a message in the chat format, with the older `function_call` among them."""
    value: object = turn.get("tool_calls") or []
    if not isinstance(value, list):
        raise NotConvertibleError(f"{place}.tool_calls: must be a list of calls, not {json_kind(value)}")
    calls = [
        _mend_call(call, f"{place}.tool_calls[{index}]", place, index, waiting)
        for index, call in enumerate(cast("list[Any]", value))
    ]
    older: object = turn.get("function_call")
    if older is not None:
        calls.append(_make_call(older, f"{place}.function_call", place, len(calls), waiting))
    return calls


def _mend_call(call: Any, place: str, turn_place: str, number: int, waiting: list[str]) -> Any:
    """Return a call with its arguments as text; what else is wrong with it the check of the row says."""
    if not isinstance(call, dict):
        return call
    call = cast("Row", call)
    if "name" in call and "function" not in call:
        return _make_call(call, place, turn_place, number, waiting)
    function: object = call.get("function")
    if isinstance(function, dict):
        function = cast("Row", function)
        text = arguments_text(function.get("arguments"), f"{place}.function.arguments")
        function = {**_copy_name(function), "arguments": text}
    name: object = call.get("id", _call_name(turn_place, number))
    if isinstance(name, str):
        waiting.append(name)
    return {"id": name, "type": call.get("type", "function"), "function": function}


def _make_call(call: object, place: str, turn_place: str, number: int, waiting: list[str]) -> Row:
    if not isinstance(call, dict) or "name" not in call:
        raise NotConvertibleError(f"{place}: a function call is an object with name and arguments")
    function = cast("Row", call)
    text = arguments_text(function.get("arguments"), f"{place}.arguments")
    name = _call_name(turn_place, number)
    waiting.append(name)
    return {"id": name, "type": "function", "function": {**_copy_name(function), "arguments": text}}


def _call_name(turn_place: str, number: int) -> str:
    """Return a name made of the place, so that every call of a conversation has one of its own."""
    return f"call_{turn_place.rpartition('[')[2].rstrip(']')}_{number}"


def _copy_name(function: Row) -> Row:
    return {"name": function["name"]} if "name" in function else {}


def _tool_list(row: Row, key: str) -> list[Row]:
    value: Any = row.get(key)
    if isinstance(value, str) and value.strip():
        try:
            value = drop_null_keys(orjson.loads(value))
        except orjson.JSONDecodeError as error:
            raise NotConvertibleError(f"{key}: is not JSON: {error.msg}") from None
    if not value:
        return []
    if not isinstance(value, list):
        raise NotConvertibleError(f"{key}: must be a list of tools, not {json_kind(value)}")
    return [_wrap_tool(tool) for tool in cast("list[Any]", value)]


def _wrap_tool(tool: Any) -> Row:
    if isinstance(tool, dict) and "function" not in tool:
        return {"type": "function", "function": cast("Row", tool)}
    return cast("Row", tool)
