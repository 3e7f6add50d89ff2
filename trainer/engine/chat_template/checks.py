"""Whether the words of a row arrived where they belong: every text in its sequence, and trained what is to be written.

A shadow, with a word for each text, shows what a template does with a row of that shape. The row's own texts are
compared afterwards, because some templates look into a text, and cut or change it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from trainer.contract.rows import Message
from trainer.engine.chat_template.messages import Arrangement
from trainer.engine.chat_template.shadows import Shadow
from trainer.engine.chat_template.turns import TurnText, UnclearTurnError

_KINDS = {"text": "text", "calls": "tool call", "thoughts": "reasoning_content", "name": "name"}
_THOUGHT_TAGS = re.compile(r"</?think>")


def check_shadow_turn(shadow: Shadow, arrangement: Arrangement, turn: TurnText) -> None:
    """Raise UnclearTurnError if a word of the last message is not in its answer, or any other word is."""
    check_shadow_prompt(shadow, arrangement, turn.prompt, turn.number)
    for number, words in enumerate(shadow.words[: turn.number + 1]):
        for kind, word in _flatten_words(words):
            if number == turn.number and word not in turn.answer and not _may_be_lost(kind, arrangement):
                raise UnclearTurnError(f"it leaves out the {_KINDS[kind]} of message {number + 1}")
            if number != turn.number and word in turn.answer:
                raise UnclearTurnError(f"it writes the {_KINDS[kind]} of message {number + 1} into the answer")
    if any(word in turn.answer for word in shadow.tool_words):
        raise UnclearTurnError("it writes the tools into the answer")


def check_shadow_prompt(shadow: Shadow, arrangement: Arrangement, text: str, count: int) -> None:
    """Raise UnclearTurnError if a word of the first `count` messages, or of the tools, is not in a text."""
    for number, words in enumerate(shadow.words[:count]):
        for kind, word in _flatten_words(words):
            # Earlier thoughts are the template's own business: generation sees what it leaves of them.
            if word not in text and kind != "thoughts" and not _may_be_lost(kind, arrangement):
                raise UnclearTurnError(f"it leaves out the {_KINDS[kind]} of message {number + 1}")
    if any(word not in text for word in shadow.tool_words):
        raise UnclearTurnError("it leaves out a tool")


def check_texts(
    messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None, sequence_text: str, count: int
) -> None:
    """Raise UnclearTurnError if a text of the first `count` messages, or a tool, is not in a sequence's text."""
    for number, message in enumerate(messages[:count]):
        # What an answer thought aloud is left out of later prompts by many templates.
        text = _THOUGHT_TAGS.split(message.text)[-1] if message.role == "assistant" else message.text
        _require_texts([text, *_call_texts(message, sequence_text)], sequence_text, number)
    for tool in tools or ():
        function = cast("dict[str, Any]", tool.get("function") or {})
        if not _has_text(sequence_text, str(function.get("name") or "")) or not _has_text(
            sequence_text, str(function.get("description") or "")
        ):
            raise UnclearTurnError(f"it leaves out the tool {function.get('name')}")


def check_answer(message: Message, answer: str, number: int, *, without_thoughts: bool) -> bool:
    """Return whether a trained message's texts are trained as they are, but for white space around them.

    False if white space inside them is changed. Raises UnclearTurnError if one of them is not trained.
    """
    texts = _THOUGHT_TAGS.split(message.text)
    texts = [*(texts[-1:] if without_thoughts else texts), *_call_texts(message, answer)]
    _require_texts(texts, answer, number)
    return all(_has_exact_text(answer, text.strip()) for text in texts)


def _flatten_words(words: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    return ((kind, word) for kind, group in words.items() for word in group)


def _may_be_lost(kind: str, arrangement: Arrangement) -> bool:
    # Both are left out with a warning where the template has no place for them.
    return (kind == "name" and "names" in arrangement.notes) or (kind == "thoughts" and "thoughts" in arrangement.notes)


def _require_texts(texts: Sequence[str], rendering: str, number: int) -> None:
    for text in texts:
        if not _has_text(rendering, text.strip()):
            excerpt = text.strip()[:40]
            raise UnclearTurnError(f"it leaves out or changes a text of message {number + 1} («{excerpt}»)")


def _has_text(rendering: str, text: str) -> bool:
    return _has_exact_text(rendering, text) or "".join(text.split()) in "".join(rendering.split())


def _has_exact_text(rendering: str, text: str) -> bool:
    if text in rendering:
        return True
    # Inside JSON, as tools' results and arguments may be.
    return json.dumps(text, ensure_ascii=False)[1:-1] in rendering or json.dumps(text)[1:-1] in rendering


def _call_texts(message: Message, rendering: str) -> Iterator[str]:
    """Yield what must be found of a message's calls: the arguments as they are, or else each text in them."""
    for call in message.tool_calls or ():
        yield call.function.name
        text = call.function.arguments
        if text in rendering:
            continue
        try:
            arguments: Any = json.loads(text, parse_float=str, parse_int=str)
        except (ValueError, RecursionError):
            arguments = text
        yield from _iterate_texts(arguments)


def _iterate_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            yield key
            yield from _iterate_texts(item)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _iterate_texts(item)
