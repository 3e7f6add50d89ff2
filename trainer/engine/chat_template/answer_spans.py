"""Where the assistant speaks in a rendered conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from trainer.contract.rows import ChatRow
from trainer.engine.chat_template.render import ChatTemplate

# Stands in for a turn's content, to see where the template puts it: a word that no conversation has.
_SENTINEL = "burnishsentinel"


def assistant_spans(
    template: ChatTemplate,
    row: ChatRow,
    messages: Sequence[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    text: str,
) -> list[tuple[int, int]]:
    """Return the spans of `text` that the model is to write: each trained turn's content with its end token."""
    weights = iter(message.trained for message in row.messages if message.role == "assistant")
    spans: list[tuple[int, int]] = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant" and next(weights):
            start = _turn_start(template, messages, index, tools, text)
            # Two turns found at one place: one of them would be trained on the other's text.
            if spans and start < spans[-1][1]:
                raise ValueError("the assistant's turns overlap")
            spans.append((start, _turn_end(template, message["content"], start, text)))
    return spans


def _turn_start(
    template: ChatTemplate,
    messages: Sequence[dict[str, Any]],
    index: int,
    tools: list[dict[str, Any]] | None,
    text: str,
) -> int:
    """Return where the turn begins: after the prompt that generation would see, if the template allows that."""
    try:
        prompt = template.render(messages[:index], tools, prompt=True)
    except (TemplateError, TypeError, ValueError, KeyError, IndexError):
        prompt = None
    # The usual case. It fails for templates that render the turns in front differently once an answer follows.
    if prompt and text.startswith(prompt):
        return len(prompt)
    marked = [*messages[:index], {**messages[index], "content": _SENTINEL}, *messages[index + 1 :]]
    start = template.render(marked, tools).find(_SENTINEL)
    # Calls are rendered beside the content, in front of it or behind: its place does not say where the turn begins.
    if start < 0 or messages[index].get("tool_calls") or not text.startswith(messages[index]["content"], start):
        raise ValueError(f"the place of message {index + 1} in the rendering is not clear")
    return start


def _turn_end(template: ChatTemplate, content: str, start: int, text: str) -> int:
    """Return the end of the turn in `text`, its end-of-turn token included."""
    # Some templates strip contents: the stripped form is in the text of either kind.
    content = content.strip()
    place = text.find(content, start) if content else start
    after = (place if place >= 0 else start) + (len(content) if place >= 0 else 0)
    if template.end_of_turn is None:
        return after
    end = text.find(template.end_of_turn, after)
    return end + len(template.end_of_turn) if end >= 0 else len(text)
