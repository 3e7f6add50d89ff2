"""Prompts and the outputs that follow them, shared by the row formats that have both.

Like `messages`: each function adds to `problems` sentences that begin with the place.
"""

from __future__ import annotations

from typing import Any, cast

import orjson

from burnish.datasets.base import Row
from burnish.datasets.messages import (
    Conversation,
    check_message,
    check_messages,
    check_options,
    plain_messages,
    unknown_keys,
)
from burnish.datasets.wording import json_kind

_INPUT_KEYS = frozenset({"messages", "tools", "parallel_tool_calls"})


def check_input(row: Row, problems: list[str]) -> Conversation:
    """Check `input`, the prompt of a row, and return what it holds. It may not end with an assistant's message."""
    if "input" not in row:
        problems.append("input: is missing; a row needs an object with the prompt's messages")
        return Conversation()
    if not isinstance(row["input"], dict):
        problems.append(f"input: must be an object with the prompt's messages, not {json_kind(row['input'])}")
        return Conversation()
    prompt = cast("dict[str, Any]", row["input"])
    conversation = check_prompt(
        "input.", prompt, problems, missing_message="is missing; the prompt is a list of messages"
    )
    check_options("input", prompt, problems)
    problems.extend(unknown_keys("input", prompt, _INPUT_KEYS))
    return conversation


def check_prompt(prefix: str, prompt: Row, problems: list[str], *, missing_message: str) -> Conversation:
    """Check the `messages` of a prompt; its place ends with `prefix`, and they may not end with the assistant's."""
    place, before = f"{prefix}messages", len(problems)
    if "messages" not in prompt:
        problems.append(f"{place}: {missing_message}")
        return Conversation()
    conversation = check_messages(place, prompt["messages"], problems)
    if len(problems) == before:
        _check_end(place, prompt["messages"], problems)
    return conversation


def plain_input(row: Row, texts: list[str]) -> int:
    """Count the strings of a good prompt that ends with a user's message, its key among them; 0 for anything else."""
    prompt = row.get("input")
    if type(prompt) is not dict or len(cast("Row", prompt)) != 1:
        return 0
    strings, last = plain_messages(cast("Row", prompt).get("messages"), texts)
    return strings + 2 if last == "user" else 0


def plain_output(value: object, texts: list[str]) -> int:
    """Count the strings of an output that is one message of the assistant; 0 for anything else."""
    strings, last = plain_messages(value, texts)
    return strings if last == "assistant" and len(cast("list[Row]", value)) == 1 else 0


def check_output(place: str, value: object, prompt: Conversation, problems: list[str]) -> bool:
    """Check an output: the assistant's message, or several in turns with the user's. Return whether it is good."""
    before = len(problems)
    if not isinstance(value, list):
        problems.append(f"{place}: must be a list of the assistant's messages, not {json_kind(value)}")
    elif not value:
        problems.append(f"{place}: is empty; an output needs at least one assistant message")
    else:
        _check_turns(place, cast("list[object]", value), prompt, problems)
    return len(problems) == before


def check_reply(place: str, value: object, prompt: Conversation, problems: list[str]) -> bool:
    """Check a single message of the assistant after the prompt. Return whether it is good."""
    before = len(problems)
    check_message(place, value, _conversation_after(prompt), problems)
    if len(problems) == before and (role := cast("Row", value)["role"]) != "assistant":
        problems.append(f"{place}.role: is {role}; a response is the assistant's")
    return len(problems) == before


def spoken_content(messages: list[Row]) -> list[tuple[str, str, bytes]]:
    """Return what good messages say, for comparing: role, text without space around it, calls and thoughts."""
    return [
        (message["role"], _content_text(message.get("content")).strip(), _encode_calls(message)) for message in messages
    ]


def _check_end(place: str, messages: list[Row], problems: list[str]) -> None:
    if messages[-1]["role"] == "assistant":
        problems.append(
            f"{place}[{len(messages) - 1}]: the prompt ends with an assistant message; "
            "end it where the assistant is to answer"
        )
    elif all(message["role"] in ("system", "developer") for message in messages):
        problems.append(f"{place}: has no user message; there is nothing to answer")


def _check_turns(place: str, messages: list[object], prompt: Conversation, problems: list[str]) -> None:
    conversation, before = _conversation_after(prompt), len(problems)
    for index, message in enumerate(messages):
        check_message(f"{place}[{index}]", message, conversation, problems)
    if len(problems) > before:
        return
    for index, message in enumerate(cast("list[Row]", messages)):
        expected_role = "user" if index % 2 else "assistant"
        if message["role"] != expected_role:
            problems.append(
                f"{place}[{index}].role: is {message['role']} where {expected_role} is due; "
                "an output is one assistant message, or assistant and user in turns"
            )
            return
    if len(messages) % 2 == 0:
        problems.append(f"{place}[{len(messages) - 1}]: an output ends with an assistant message, not a user's")
    elif not conversation.trained:
        problems.append(f"{place}: every assistant message has weight 0; there would be nothing to learn")


def _conversation_after(prompt: Conversation) -> Conversation:
    return Conversation(open_calls=set(prompt.open_calls), calls=set(prompt.calls))


def _content_text(content: str | list[Row] | None) -> str:
    return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""


def _encode_calls(message: Row) -> bytes:
    calls: list[Row] = message.get("tool_calls") or []
    thoughts: str = message.get("reasoning_content") or ""
    return orjson.dumps([[call["function"] for call in calls], thoughts.strip()], option=orjson.OPT_SORT_KEYS)
