"""Calls of tools in an answer's text, in the Hermes form: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

It is the form in which training data's calls are written for models without tools in their template, and which open
models share (see `trainer/engine/chat_template/render.py`).
"""

from __future__ import annotations

import json
from typing import Any, cast

from service.chat.schemas import CalledFunction, ToolCall
from service.kit import ids

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class CallReader:
    """Splits a stream of text into what is said and what is called. A call that cannot be read stays text."""

    def __init__(self) -> None:
        self._held = ""

    def add_text(self, text: str) -> tuple[str, list[ToolCall]]:
        """Take text; return what can be shown of it, and the calls that are complete now."""
        self._held += text
        plain_text, calls = "", list[ToolCall]()
        while True:
            before, opening_mark, after_mark = self._held.partition(_OPEN)
            if not opening_mark:
                safe_length = len(before) - _overlap_length(before)
                self._held = before[safe_length:]
                return plain_text + before[:safe_length], calls
            plain_text += before
            body, closing_mark, after = after_mark.partition(_CLOSE)
            if not closing_mark:
                self._held = opening_mark + after_mark
                return plain_text, calls
            call = _parse_call(body)
            if call is None:
                plain_text += opening_mark + body + closing_mark
            else:
                calls.append(call)
            self._held = after

    def finish_text(self) -> tuple[str, list[ToolCall]]:
        """Return what is left at the end; a model may end its turn in place of the closing mark."""
        held_text, self._held = self._held, ""
        before, opening_mark, body = held_text.partition(_OPEN)
        call = _parse_call(body) if opening_mark else None
        return (held_text, []) if call is None else (before, [call])


def _parse_call(body: str) -> ToolCall | None:
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):  # a model may write lists in lists in lists
        return None
    if not isinstance(value, dict):
        return None
    call = cast(dict[str, Any], value)
    name, arguments = call.get("name"), call.get("arguments", {})
    if not isinstance(name, str) or not name:
        return None
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(id=ids.new_id(ids.TOOL_CALL), function=CalledFunction(name=name, arguments=text))


def _overlap_length(text: str) -> int:
    """Return how many of the last characters may begin a call."""
    return next((size for size in range(len(_OPEN) - 1, 0, -1) if text.endswith(_OPEN[:size])), 0)
