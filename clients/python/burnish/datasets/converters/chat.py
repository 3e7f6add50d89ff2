"""Conversations in the chat format, `{"messages": [{"role", "content"}, …], "tools"?}`, perhaps among other keys."""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.base import ChatExample, label_of
from burnish.datasets.converters.calls import options_of
from burnish.datasets.converters.prompts import with_system
from burnish.datasets.converters.turns import messages_of


class ChatConverter:
    """Conversations; `label` says whether the last answer is good."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has messages."""
        return "messages" in row

    def convert_row(self, row: Row) -> ChatExample:
        """Return the `messages` as a conversation."""
        messages = with_system(row, messages_of(row.get("messages"), "messages"))
        return ChatExample(messages, options_of(row), label_of(row, "label"))
