"""Messages as others write them: `from` and `value`, `role` and `content`, transcripts of Human and Assistant."""

from __future__ import annotations

import re
from typing import Any, cast

import orjson

from burnish.datasets.absence import is_absent
from burnish.datasets.base import Row
from burnish.datasets.converters.base import make_message
from burnish.datasets.converters.weights import weight_of
from burnish.datasets.errors import NotConvertibleError
from burnish.datasets.wording import json_kind, quote_value

_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")
_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
TRANSCRIPT_START = "\n\nHuman:"


def messages_of(value: object, place: str) -> list[Row]:
    """Return a list of messages in the chat format. Raises NotConvertibleError with the place."""
    if not isinstance(value, list) or not value:
        fault = "is empty" if value == [] else f"must be a list of messages, not {json_kind(cast('object', value))}"
        raise NotConvertibleError(f"{place}: {fault}")
    waiting: list[str] = []
    return [
        _convert_message(item, f"{place}[{index}]", waiting) for index, item in enumerate(cast("list[object]", value))
    ]


def tools_of(row: Row) -> list[Row] | None:
    """Return the tools that a row declares: a list, or JSON text of one, bare or in the chat format."""
    value: Any = row.get("tools")
    if isinstance(value, str) and value.strip():
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise NotConvertibleError(f"tools: is not JSON: {error.msg}") from None
    if not value:
        return None
    if not isinstance(value, list):
        raise NotConvertibleError(f"tools: must be a list of tools, not {json_kind(value)}")
    tools = cast("list[Any]", value)
    return [_wrap_tool(tool) for tool in tools]


def parse_transcript(text: str, place: str) -> list[Row]:
    """Return the messages of `\\n\\nHuman: …\\n\\nAssistant: …`. Raises NotConvertibleError.

    The one space after a colon goes with it; all other text stays as it is.
    """
    marks = list(_SPEAKER.finditer(text))
    if not marks or marks[0].start() > 0:
        raise NotConvertibleError(f"{place}: does not begin with Human: or Assistant:")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        make_message("user" if mark[1] == "Human" else "assistant", text[mark.end() : end].removeprefix(" "))
        for mark, end in zip(marks, ends, strict=True)
    ]


def prompt_of(value: object, place: str) -> list[Row]:
    """Return the messages of a prompt: a string (perhaps a transcript), or messages."""
    if not isinstance(value, str):
        return messages_of(value, place)
    if not value.startswith(TRANSCRIPT_START):
        return [make_message("user", value)]
    messages = parse_transcript(value, place)
    # Prompts of transcripts end with the name of whoever is to speak.
    return messages[:-1] if messages[-1] == make_message("assistant", "") else messages


def output_of(value: object, place: str) -> list[Row]:
    """Return the messages of an answer: a string, a message, or messages."""
    if isinstance(value, str):
        return [make_message("assistant", value)]
    return messages_of([cast("Row", value)] if isinstance(value, dict) else value, place)


def split_common_prompt(chosen: list[Row], rejected: list[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """Return the common beginning of two conversations and the rest of each, the assistant first."""
    common_length = 0
    for chosen_turn, rejected_turn in zip(chosen, rejected, strict=False):
        if chosen_turn != rejected_turn:
            break
        common_length += 1
    common_length = min(common_length, len(chosen) - 1, len(rejected) - 1)
    while common_length and not (chosen[common_length]["role"] == rejected[common_length]["role"] == "assistant"):
        common_length -= 1
    if not common_length:
        raise NotConvertibleError("chosen and rejected: do not begin with the same prompt")
    return chosen[:common_length], chosen[common_length:], rejected[common_length:]


def _wrap_tool(tool: Any) -> Row:
    if isinstance(tool, dict) and "function" not in tool:
        return {"type": "function", "function": cast("Row", tool)}
    return cast("Row", tool)


def _convert_message(item: object, place: str, waiting: list[str]) -> Row:
    if not isinstance(item, dict):
        raise NotConvertibleError(f"{place}: must be a message, not {json_kind(item)}")
    turn = cast("Row", item)
    sender = "from" if "from" in turn else "role"
    if sender not in turn:
        raise NotConvertibleError(f"{place}: has neither from and value nor role and content")
    role = _ROLES.get(str(turn[sender]).lower())
    if role is None:
        raise NotConvertibleError(
            f"{place}.{sender}: {quote_value(turn[sender])} is not known; use {', '.join(_ROLES)}"
        )
    message = _sharegpt_message(turn, role, place, waiting) if sender == "from" else _chat_message(turn, role)
    weight = weight_of(turn, f"{place}.")
    # What others say is never learned, whatever their flags.
    return message if weight is None or role != "assistant" else {**message, "weight": weight}


def _chat_message(turn: Row, role: str) -> Row:
    return {key: turn[key] for key in _KEYS if not is_absent(key, turn.get(key))} | {"role": role}


def _sharegpt_message(turn: Row, role: str, place: str, waiting: list[str]) -> Row:
    if not isinstance(turn.get("value"), str):
        fault = f"must be a string, not {json_kind(turn['value'])}" if "value" in turn else "is missing"
        raise NotConvertibleError(f"{place}.value: {fault}")
    if turn["from"] == "function_call":
        return {"role": role, "tool_calls": _parse_function_calls(turn["value"], place, waiting)}
    if role == "tool":
        if not waiting:
            raise NotConvertibleError(f"{place}: answers no function_call")
        return make_message(role, turn["value"]) | {"tool_call_id": waiting.pop(0)}
    return make_message(role, turn["value"])


def _parse_function_calls(text: str, place: str, waiting: list[str]) -> list[Row]:
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotConvertibleError(f"{place}.value: is not JSON of a function call: {error.msg}") from None
    calls: list[Row] = []
    for call in cast("list[object]", value if isinstance(value, list) else [value]):
        if not isinstance(call, dict) or "name" not in call:
            raise NotConvertibleError(f"{place}.value: a function call is an object with name and arguments")
        function = cast("Row", call)
        arguments = function.get("arguments", {})
        text = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
        # Numbered by the place, so that every call of a conversation has a name of its own.
        name = f"call_{place.rpartition('[')[2].rstrip(']')}_{len(calls)}"
        calls.append({"id": name, "type": "function", "function": {"name": function["name"], "arguments": text}})
        waiting.append(name)
    return calls
