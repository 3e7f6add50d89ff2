"""Shadows: a row with a word of its own in place of each text, to see what a template does with which text.

A row's shape decides what a template does with it, so that one shadow answers for all rows of a shape.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.contract.rows import FunctionCall, Message, ToolCall
from trainer.engine.chat_template.abilities import make_word


@dataclass
class Shadow:
    """A conversation of words. `words` are those of each message by what they stand for, `tool_words` the tools'."""

    messages: list[Message] = field(default_factory=list[Message])
    tools: list[dict[str, Any]] | None = None
    words: list[dict[str, list[str]]] = field(default_factory=list[dict[str, list[str]]])
    tool_words: list[str] = field(default_factory=list[str])


def shape_of(messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> Hashable:
    """Return what of a conversation decides how a template treats it, apart from the texts themselves."""
    places = {call.id: place for place, call in enumerate(c for m in messages for c in m.tool_calls or ())}
    return (
        tuple(
            (
                message.role,
                bool(message.text.strip()),
                bool(message.name),
                bool(message.reasoning_content),
                tuple(_has_arguments(call) for call in message.tool_calls or ()),
                places.get(message.tool_call_id) if message.role == "tool" else None,
            )
            for message in messages
        ),
        len(tools or ()),
    )


def make_shadow(messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> Shadow:
    """Return the shadow of a conversation."""
    maker = _ShadowMaker()
    shadow = Shadow()
    for message in messages:
        words: dict[str, list[str]] = {}
        shadow.messages.append(maker.copy_message(message, words))
        shadow.words.append(words)
    if tools:
        shadow.tools = [maker.copy_tool(tool, shadow.tool_words) for tool in tools]
    return shadow


class _ShadowMaker:
    def __init__(self) -> None:
        self._count = 0

    def copy_message(self, message: Message, words: dict[str, list[str]]) -> Message:
        text = message.text.strip()
        calls = tuple(self._copy_call(call, words) for call in message.tool_calls or ())
        return message.model_copy(
            update={
                "content": self._add_word("text", words) if text else "",
                "name": self._add_word("name", words) if message.name else None,
                "reasoning_content": self._add_word("thoughts", words) if message.reasoning_content else None,
                "tool_calls": calls or None,
            }
        )

    def copy_tool(self, tool: dict[str, Any], words: list[str]) -> dict[str, Any]:
        function: dict[str, Any] = dict(tool.get("function") or {})
        names: dict[str, list[str]] = {}
        function["name"] = self._add_word("tool", names)
        if function.get("description"):
            function["description"] = self._add_word("tool", names)
        words.extend(names["tool"])
        return {**tool, "function": function}

    def _copy_call(self, call: ToolCall, words: dict[str, list[str]]) -> ToolCall:
        arguments = call.function.arguments
        if _has_arguments(call):
            arguments = json.dumps({self._add_word("calls", words): self._add_word("calls", words)})
        function = FunctionCall(name=self._add_word("calls", words), arguments=arguments)
        return call.model_copy(update={"function": function})

    def _add_word(self, kind: str, words: dict[str, list[str]]) -> str:
        word = make_word(self._count)
        self._count += 1
        words.setdefault(kind, []).append(word)
        return word


def _has_arguments(call: ToolCall) -> bool:
    return bool(call.function.arguments.strip().strip("{}").strip())
