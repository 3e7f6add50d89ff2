"""Checks of the parts that conversations are made of, shared by the row formats that have them.

Each function gets the place of the value in its row, such as `messages[2]`, and adds to `problems` sentences
that begin with the place. The wire is OpenAI's chat format.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from burnish.datasets.absence import is_absent
from burnish.datasets.parsing import MAX_DEPTH, is_too_deep
from burnish.datasets.wording import json_kind, quote_key, quote_value

ROLES = ("system", "developer", "user", "assistant", "tool")
_SPEAKERS = ("user", "assistant", "system", "developer")
_ROLES_IN_WORDS = "use system, developer, user, assistant or tool"
_COMMON_KEYS = frozenset({"role", "content", "name"})
_KEYS = dict.fromkeys(ROLES, _COMMON_KEYS) | {
    "assistant": _COMMON_KEYS | {"weight", "tool_calls", "reasoning_content"},
    "tool": _COMMON_KEYS | {"tool_call_id"},
}
_EMPTY_IN_EXPORTS = frozenset({"tool_calls", "annotations"})
_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY_HINTS = {
    "function_call": "function_call is deprecated: use tool_calls",
    "refusal": "put the refusal's text into content",
    "weight": "only assistant messages have a weight",
    "reasoning_content": "only assistant messages have reasoning_content",
    "reasoning": "put what the assistant thinks into reasoning_content",
    "thinking": "put what the assistant thinks into reasoning_content",
    "tool_calls": "only assistant messages have tool_calls",
    "tool_call_id": "only tool messages have a tool_call_id",
    "functions": "functions is deprecated: use tools",
    "prompt": "prompt and completion are an older format: write them as messages of user and assistant",
    "completion": "prompt and completion are an older format: write them as messages of user and assistant",
    "conversations": "write the conversation as messages with role and content",
    "chosen": "this is another format: burnish data convert rewrites it",
    "rejected": "this is another format: burnish data convert rewrites it",
    "instruction": "this is another format: burnish data convert rewrites it",
    "data": "if it is a list of rows, write one row a line, as jq -c '.data[]' FILE does",
}


@dataclass
class Conversation:
    """What the messages read so far mean for the ones to come."""

    assistants: int = 0
    trained: int = 0
    open_calls: set[str] = field(default_factory=set[str])
    calls: set[str] = field(default_factory=set[str])


def check_messages(place: str, value: object, problems: list[str]) -> Conversation:
    """Check a list of messages and return what it holds; an empty list is a problem."""
    conversation = Conversation()
    if not isinstance(value, list):
        problems.append(f"{place}: must be a list of messages, not {json_kind(value)}")
    elif not value:
        problems.append(f"{place}: is empty; a row needs at least one message")
    else:
        for index, message in enumerate(cast("list[object]", value)):
            check_message(f"{place}[{index}]", message, conversation, problems)
    return conversation


def plain_messages(value: Any, texts: list[str]) -> tuple[int, str]:
    """Count the strings of good messages that have a role and a text alone, and return the last role, too.

    The texts are added to `texts`. (0, "") for anything else: `check_messages` must look at it.
    """
    messages: list[Any] = value
    if type(messages) is not list:
        return 0, ""
    role = ""
    try:
        for message in messages:
            role, content = message["role"], message["content"]
            if role not in _SPEAKERS or type(content) is not str or len(message) != 2 or not content:
                return 0, ""
            if content.isspace():
                return 0, ""
            texts.append(content)
    except (KeyError, TypeError):
        return 0, ""
    return 4 * len(messages), role


def check_message(place: str, value: object, conversation: Conversation, problems: list[str]) -> None:
    """Check one message that comes after those in `conversation`, and add it to them."""
    if not isinstance(value, dict):
        problems.append(f"{place}: must be an object with role and content, not {json_kind(value)}")
        return
    message = cast("dict[str, Any]", value)
    role = message.get("role")
    if not isinstance(role, str) or role not in _KEYS:
        problems.append(_role_problem(place, message))
        return
    if not message.keys() <= _KEYS[role]:
        _check_keys(place, message, role, problems)
    if message.get("name") is not None:
        _check_text(f"{place}.name", message["name"], problems)
    if role == "assistant":
        _check_assistant(place, message, conversation, problems)
    else:
        _check_content(place, message, problems, may_be_empty=role == "tool")
        if role == "tool":
            _check_answer(place, message, conversation, problems)


def check_tools(place: str, value: object, problems: list[str]) -> None:
    """Check the list of tools that a row declares."""
    if not isinstance(value, list):
        problems.append(
            f"{place}: must be a list of tools, not {json_kind(value)}; leave the key out if there are none"
        )
        return
    names: set[str] = set()
    for index, tool in enumerate(cast("list[object]", value)):
        function = _function_of(f"{place}[{index}]", tool, {"type", "function"}, problems)
        if function is not None:
            _check_declaration(f"{place}[{index}].function", function, names, problems)


def check_options(place: str, value: dict[str, Any], problems: list[str]) -> None:
    """Check `tools` and `parallel_tool_calls` of the object at `place` (empty for the row itself)."""
    prefix = f"{place}." if place else ""
    if value.get("tools") is not None:
        check_tools(f"{prefix}tools", value["tools"], problems)
    parallel = value.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        problems.append(f"{prefix}parallel_tool_calls: must be true or false, not {json_kind(parallel)}")


def unknown_keys(place: str, value: dict[str, Any], known_keys: Collection[str]) -> list[str]:
    """Return a problem for each key that is not among `known_keys`; a null means that the key is not there."""
    prefix = f"{place}." if place else ""
    return [
        f"{prefix}{quote_key(key)}: is not a known key; "
        + (_KEY_HINTS.get(key) or f"use {', '.join(sorted(known_keys))}")
        for key in value
        if key not in known_keys and value[key] is not None
    ]


def _role_problem(place: str, message: dict[str, Any]) -> str:
    if "role" not in message:
        return f"{place}.role: is missing; {_ROLES_IN_WORDS}"
    hint = " (function is deprecated: use tool)" if message["role"] == "function" else ""
    return f"{place}.role: {quote_value(message['role'])} is not a role{hint}; {_ROLES_IN_WORDS}"


def _check_keys(place: str, message: dict[str, Any], role: str, problems: list[str]) -> None:
    # Messages saved from a chat API's answer carry keys without a meaning here; they are not mistakes.
    own_keys = {key: value for key, value in message.items() if not (key in _EMPTY_IN_EXPORTS and value == [])}
    problems.extend(unknown_keys(place, own_keys, _KEYS[role]))


def _check_assistant(place: str, message: dict[str, Any], conversation: Conversation, problems: list[str]) -> None:
    weight = message.get("weight")
    weight = 1 if weight is None else weight
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight not in (0, 1):
        problems.append(f"{place}.weight: is {quote_value(weight)}; use 0 (do not learn it) or 1")
    if message.get("reasoning_content") not in (None, ""):
        _check_text(f"{place}.reasoning_content", message["reasoning_content"], problems)
    calls: object = message.get("tool_calls")
    calls = None if is_absent("tool_calls", calls) else calls
    if calls is not None:
        _check_calls(f"{place}.tool_calls", calls, conversation, problems)
    if calls is None or message.get("content") is not None:
        _check_content(place, message, problems, may_be_empty=calls is not None)
    conversation.assistants += 1
    conversation.trained += weight != 0


def _check_content(place: str, message: dict[str, Any], problems: list[str], *, may_be_empty: bool) -> None:
    content = message.get("content")
    if isinstance(content, str):
        if not may_be_empty and (not content or content.isspace()):
            problems.append(f"{place}.content: is empty")
    elif isinstance(content, list):
        _check_parts(f"{place}.content", cast("list[object]", content), problems)
    elif "content" not in message:
        problems.append(f"{place}.content: is missing")
    else:
        problems.append(f"{place}.content: must be a string or a list of text parts, not {json_kind(content)}")


def _check_parts(place: str, parts: list[object], problems: list[str]) -> None:
    if not parts:
        problems.append(f"{place}: is empty")
    for index, part in enumerate(parts):
        here = f"{place}[{index}]"
        if not isinstance(part, dict):
            problems.append(f'{here}: must be an object like {{"type": "text", "text": "…"}}, not {json_kind(part)}')
            continue
        part = cast("dict[str, Any]", part)
        if part.get("type") != "text":
            kind = quote_value(part["type"]) if "type" in part else "a part without a type"
            problems.append(f'{here}.type: {kind} cannot be trained on; only parts of the type "text" can')
            continue
        _check_text(f"{here}.text", part.get("text"), problems)
        problems.extend(unknown_keys(here, part, ("type", "text")))


def _check_text(place: str, value: object, problems: list[str]) -> None:
    if not isinstance(value, str):
        problems.append(f"{place}: must be a string, not {json_kind(value)}")
    elif not value or value.isspace():
        problems.append(f"{place}: is empty")


def _check_calls(place: str, value: object, conversation: Conversation, problems: list[str]) -> None:
    if not isinstance(value, list):
        problems.append(
            f"{place}: must be a list of calls, not {json_kind(value)}; leave the key out if there are none"
        )
        return
    for index, call in enumerate(cast("list[object]", value)):
        here = f"{place}[{index}]"
        function = _function_of(here, call, {"id", "type", "function"}, problems)
        if function is None:
            continue
        _check_call_id(f"{here}.id", cast("dict[str, Any]", call).get("id"), conversation, problems)
        _check_function_name(f"{here}.function.name", function, problems)
        _check_arguments(f"{here}.function.arguments", function, problems)
        problems.extend(unknown_keys(f"{here}.function", function, ("name", "arguments")))


def _function_of(place: str, value: object, keys: set[str], problems: list[str]) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        problems.append(f"{place}: must be an object, not {json_kind(value)}")
        return None
    value = cast("dict[str, Any]", value)
    problems.extend(unknown_keys(place, value, keys))
    if value.get("type") != "function":
        fault = f"{quote_value(value['type'])} is not known" if "type" in value else "is missing"
        problems.append(f'{place}.type: {fault}; use "function"')
    function = value.get("function")
    if not isinstance(function, dict):
        fault = f"must be an object, not {json_kind(function)}" if "function" in value else "is missing"
        problems.append(f"{place}.function: {fault}")
        return None
    return cast("dict[str, Any]", function)


def _check_call_id(place: str, value: object, conversation: Conversation, problems: list[str]) -> None:
    if not isinstance(value, str) or not value:
        problems.append(f"{place}: must be a string that the tool's answer repeats, not {quote_value(value)}")
    elif value in conversation.calls:
        problems.append(f"{place}: {quote_value(value)} is the id of an earlier call; give each its own")
    else:
        conversation.calls.add(value)
        conversation.open_calls.add(value)


def _check_function_name(place: str, function: dict[str, Any], problems: list[str]) -> None:
    name = function.get("name")
    if not isinstance(name, str) or not _FUNCTION_NAME.fullmatch(name):
        fault = f"is {quote_value(name)}" if "name" in function else "is missing"
        problems.append(f"{place}: {fault}; use 1 to 64 of a-z A-Z 0-9 _ -")


def _check_arguments(place: str, function: dict[str, Any], problems: list[str]) -> None:
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        fault = f"not {json_kind(arguments)}" if "arguments" in function else "and it is missing"
        problems.append(f'{place}: must be a string that holds a JSON object, like "{{}}", {fault}')
        return
    try:
        arguments_value: object = orjson.loads(arguments)
    except orjson.JSONDecodeError as error:
        problems.append(f"{place}: is not JSON at column {error.colno} of the string: {error.msg}")
        return
    if isinstance(arguments_value, str):
        problems.append(f"{place}: was encoded twice, as JSON text inside of JSON text: burnish data convert mends it")
    elif not isinstance(arguments_value, dict):
        problems.append(f"{place}: must hold a JSON object, not {json_kind(arguments_value)}")
    elif arguments.count("{") + arguments.count("[") > MAX_DEPTH and is_too_deep(cast("object", arguments_value)):
        problems.append(f"{place}: is nested deeper than {MAX_DEPTH} levels")


def _check_answer(place: str, message: dict[str, Any], conversation: Conversation, problems: list[str]) -> None:
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str):
        fault = f"must be a string, not {json_kind(call_id)}" if "tool_call_id" in message else "is missing"
        problems.append(f"{place}.tool_call_id: {fault}; name the call that this message answers")
    elif call_id in conversation.open_calls:
        conversation.open_calls.remove(call_id)
    else:
        why = "was answered already" if call_id in conversation.calls else "is the id of no earlier call"
        problems.append(f"{place}.tool_call_id: {quote_value(call_id)} {why}")


def _check_declaration(place: str, function: dict[str, Any], names: set[str], problems: list[str]) -> None:
    _check_function_name(f"{place}.name", function, problems)
    problems.extend(unknown_keys(place, function, ("name", "description", "parameters", "strict")))
    name = function.get("name")
    if isinstance(name, str):
        if name in names:
            problems.append(f"{place}.name: {quote_value(name)} is declared twice")
        names.add(name)
    for key, expected_type, words in (
        ("description", str, "a string"),
        ("parameters", dict, "an object (JSON Schema)"),
        ("strict", bool, "true or false"),
    ):
        if function.get(key) is not None and not isinstance(function[key], expected_type):
            problems.append(f"{place}.{key}: must be {words}, not {json_kind(function[key])}")
