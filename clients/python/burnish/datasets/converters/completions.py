"""Completions: `{"prompt", "completion"?, "label"?, "system"?}`, strings or messages; also prompts alone."""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.base import ChatExample, system_messages
from burnish.datasets.converters.turns import output_of, prompt_of, tools_of
from burnish.datasets.errors import NotConvertibleError


class CompletionsConverter:
    """Prompts and what completes them; `label` says whether the completion is good."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has a prompt."""
        return "prompt" in row

    def convert_row(self, row: Row) -> ChatExample:
        """Return `prompt` and `completion` as a conversation of two messages."""
        label = row.get("label")
        if label is not None and not isinstance(label, bool):
            raise NotConvertibleError("label: must be true or false")
        if row.get("prompt") is None:
            raise NotConvertibleError("prompt: is missing")
        completion = row.get("completion")
        answer = [] if completion is None else output_of(completion, "completion")
        return ChatExample([*system_messages(row), *prompt_of(row["prompt"], "prompt"), *answer], tools_of(row), label)
