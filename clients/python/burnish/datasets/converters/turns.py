"""Messages as others write them: `from` and `value`, `role` and `content`, transcripts of Human and Assistant."""

from __future__ import annotations

import re
from typing import Any, cast

from burnish.datasets.absence import is_absent
from burnish.datasets.base import Row
from burnish.datasets.converters.base import make_message
from burnish.datasets.converters.calls import calls_of_text, calls_of_turn
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
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_KEYS = ("content", "name", "tool_call_id")
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
TRANSCRIPT_START = "\n\nHuman:"


def messages_of(value: object, place: str) -> list[Row]:
    """Return a list of messages in the chat format. Raises NotConvertibleError with the place."""
    if not isinstance(value, list) or not value:
        fault = "is empty" if value == [] else f"must be a list of messages, not {json_kind(cast('object', value))}"
        raise NotConvertibleError(f"{place}: {fault}")
    waiting: list[str] = []
    messages: list[Row] = []
    for index, item in enumerate(cast("list[object]", value)):
        messages += _messages_of_turn(item, f"{place}[{index}]", waiting)
    return messages


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


def _messages_of_turn(item: object, place: str, waiting: list[str]) -> list[Row]:
    if not isinstance(item, dict):
        raise NotConvertibleError(f"{place}: must be a message, not {json_kind(item)}")
    turn = cast("Row", item)
    sender = next((key for key in ("from", "role") if key in turn), None)
    if sender is None:
        return _messages_by_speaker(turn, place)
    role = _ROLES.get(str(turn[sender]).lower())
    if role is None:
        raise NotConvertibleError(
            f"{place}.{sender}: {quote_value(turn[sender])} is not known; use {', '.join(_ROLES)}"
        )
    make = _sharegpt_message if sender == "from" else _chat_message
    message = make(turn, role, place, waiting)
    weight = weight_of(turn, f"{place}.")
    # What others say is never learned, whatever their flags.
    return [message if weight is None or role != "assistant" else {**message, "weight": weight}]


def _messages_by_speaker(turn: Row, place: str) -> list[Row]:
    """Return the messages of a round such as `{"human": …, "assistant": …}`, in its order."""
    speakers = [key for key in turn if key.lower() in _ROLES and _ROLES[key.lower()] in ("user", "assistant", "system")]
    if not speakers:
        raise NotConvertibleError(f"{place}: has neither from and value nor role and content")
    weight = weight_of(turn, f"{place}.")
    messages: list[Row] = []
    for key in speakers:
        if not isinstance(turn[key], str):
            raise NotConvertibleError(f"{place}.{key}: must be a string, not {json_kind(turn[key])}")
        message = make_message(_ROLES[key.lower()], turn[key])
        learned = weight is None or message["role"] != "assistant"
        messages.append(message if learned else {**message, "weight": weight})
    return messages


def _thoughts_of(turn: Row) -> str:
    """Return what an answer thinks, by whichever of its names; a second one that says something else stays unread."""
    return next((turn[key] for key in _THOUGHT_KEYS if isinstance(turn.get(key), str) and turn[key].strip()), "")


def _chat_message(turn: Row, role: str, place: str, waiting: list[str]) -> Row:
    message = {"role": role} | {key: turn[key] for key in _KEYS if not is_absent(key, turn.get(key))}
    if role == "assistant":
        if calls := calls_of_turn(turn, place, waiting):
            message["tool_calls"] = calls
        elif "content" not in message and isinstance(turn.get("refusal"), str):
            message["content"] = turn["refusal"]
        if thoughts := _thoughts_of(turn):
            message["reasoning_content"] = thoughts
    elif role == "tool":
        call_id = message.setdefault("tool_call_id", waiting[0] if waiting else None)
        if call_id in waiting:
            waiting.remove(call_id)
        elif call_id is None:
            raise NotConvertibleError(f"{place}: answers no call: it has no tool_call_id, and no call precedes it")
    if isinstance(message.get("content"), list):
        message["content"] = [_text_part(part) for part in message["content"]]
    return message


def _text_part(part: Any) -> Any:
    """Return a part of a content, its text under `text` (some write `value`); parts of other types as they are."""
    if not isinstance(part, dict):
        return part
    part = cast("Row", part)
    if part.get("type", "text") != "text":
        return part
    text = part.get("text")
    return {"type": "text", "text": part.get("value") if text is None else text}


def _sharegpt_message(turn: Row, role: str, place: str, waiting: list[str]) -> Row:
    if not isinstance(turn.get("value"), str):
        fault = f"must be a string, not {json_kind(turn['value'])}" if "value" in turn else "is missing"
        raise NotConvertibleError(f"{place}.value: {fault}")
    if turn["from"] == "function_call":
        return {"role": role, "tool_calls": calls_of_text(turn["value"], place, waiting)}
    message = make_message(role, turn["value"])
    if isinstance(turn.get("name"), str):
        message["name"] = turn["name"]
    if role == "tool":
        if not waiting:
            raise NotConvertibleError(f"{place}: answers no function_call")
        message["tool_call_id"] = waiting.pop(0)
    return message
