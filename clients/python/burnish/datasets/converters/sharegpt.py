"""ShareGPT: `{"conversations": [{"from", "value"}, …], "system"?, "tools"?}`, and pairs with `chosen`, `rejected`."""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.base import ChatExample, RankedExample, RankedResponse, label_of
from burnish.datasets.converters.calls import options_of
from burnish.datasets.converters.prompts import with_system
from burnish.datasets.converters.turns import messages_of, output_of


class ShareGPTConverter:
    """Conversations; `label` says whether the last answer is good."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has conversations."""
        return "conversations" in row or "conversation" in row

    def convert_row(self, row: Row) -> ChatExample:
        """Return the `conversations` as a conversation."""
        return ChatExample(_conversation_messages(row), options_of(row), label_of(row, "label", "kto_tag"))


class ShareGPTPairsConverter:
    """A conversation and two answers, as LLaMA-Factory writes preferences."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has conversations, chosen and rejected."""
        return "conversations" in row and "chosen" in row and "rejected" in row

    def convert_row(self, row: Row) -> RankedExample:
        """Return the prompt and the two answers."""
        answers = [output_of(row.get(key), key) for key in ("chosen", "rejected")]
        return RankedExample(
            _conversation_messages(row), [RankedResponse(answers[0], 1), RankedResponse(answers[1], 2)], options_of(row)
        )


def _conversation_messages(row: Row) -> list[Row]:
    key = "conversations" if "conversations" in row else "conversation"
    return with_system(row, messages_of(row.get(key), key))
