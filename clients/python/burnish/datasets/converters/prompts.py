"""The prompts of rows that have theirs in keys: system, history, question, and what belongs to the question."""

from __future__ import annotations

from typing import cast

from burnish.datasets.base import Row
from burnish.datasets.converters.base import make_message, require_string
from burnish.datasets.converters.turns import TRANSCRIPT_START, prompt_of
from burnish.datasets.errors import NotConvertibleError

_SYSTEM_KEYS = ("system", "system_prompt", "system_message")
_MORE_OF_QUESTION = ("input", "context")


def prompt_messages(row: Row, key: str) -> list[Row]:
    """Return system, history and the question under `key`, `input` and `context` on new lines after it.

    Raises NotConvertibleError.
    """
    question = row[key]
    if isinstance(question, str) and not question.startswith(TRANSCRIPT_START):
        pieces = [question, *(require_string(row, more, "") for more in _MORE_OF_QUESTION if more != key)]
        question = "\n".join(filter(None, pieces))
    return with_system(row, [*history_messages(row.get("history")), *prompt_of(question, key)])


def with_system(row: Row, messages: list[Row]) -> list[Row]:
    """Return the messages behind that of the row's `system` (or `system_prompt`, `system_message`), if it has one."""
    texts = {key: text for key in _SYSTEM_KEYS if (text := require_string(row, key, "")).strip()}
    if len(set(texts.values())) > 1:
        raise NotConvertibleError(f"{' and '.join(texts)}: are different; keep one of them")
    system = [make_message("system", text) for text in texts.values()][:1]
    return messages if system == messages[:1] else [*system, *messages]


def history_messages(value: object) -> list[Row]:
    """Return the rounds of `[[question, answer], …]` as messages. Raises NotConvertibleError."""
    messages: list[Row] = []
    rounds = cast("list[object]", value) if isinstance(value, list) else []
    if value is not None and not isinstance(value, list):
        raise NotConvertibleError("history: must be a list of questions and answers")
    for index, item in enumerate(rounds):
        pair = cast("list[object]", item) if isinstance(item, list) else []
        if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise NotConvertibleError(f"history[{index}]: must be a list of a question and its answer")
        messages += [make_message("user", str(pair[0])), make_message("assistant", str(pair[1]))]
    return messages
