"""Completions: `{"prompt", "completion"?, "label"?, "system"?}`, strings or messages; also prompts alone.

Questions and answers under other names, too: `question` and `answer`, `query` and `response`, `human` and
`assistant`, and Dolly's `instruction`, `context` and `response`.
"""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.base import ChatExample, label_of
from burnish.datasets.converters.calls import options_of
from burnish.datasets.converters.prompts import prompt_messages
from burnish.datasets.converters.source import peek
from burnish.datasets.converters.turns import output_of
from burnish.datasets.errors import NotConvertibleError

_PROMPTS = ("prompt", "question", "query", "instruction", "human", "user", "input")
_ANSWERS = ("completion", "response", "answer", "output", "assistant")


class CompletionsConverter:
    """Prompts and what completes them; `label` says whether the completion is good."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has a prompt, or a question under another name together with its answer."""
        return "prompt" in row or (_question_key(row) is not None and _answer_key(row) is not None)

    def convert_row(self, row: Row) -> ChatExample:
        """Return prompt and completion as a conversation of two messages."""
        question, answer = _question_key(row), _answer_key(row)
        if question is None:
            raise NotConvertibleError("prompt: is missing")
        completion = [] if answer is None else output_of(row[answer], answer)
        return ChatExample([*prompt_messages(row, question), *completion], options_of(row), label_of(row, "label"))


def _question_key(row: Row) -> str | None:
    if "prompt" in row:
        return "prompt"
    return next((key for key in _PROMPTS if key in row and not isinstance(peek(row, key), dict)), None)


def _answer_key(row: Row) -> str | None:
    return next((key for key in _ANSWERS if key in row), None)
