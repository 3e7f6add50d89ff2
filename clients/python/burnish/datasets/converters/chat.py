"""Conversations in the chat format, `{"messages": [{"role", "content"}, …], "tools"?}`, perhaps among other keys."""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.base import ChatExample, system_messages
from burnish.datasets.converters.turns import messages_of, tools_of
from burnish.datasets.errors import NotConvertibleError


class ChatConverter:
    """Conversations; `label` says whether the last answer is good."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has messages."""
        return "messages" in row

    def convert_row(self, row: Row) -> ChatExample:
        """Return the `messages` as a conversation."""
        label = row.get("label")
        if label is not None and not isinstance(label, bool):
            raise NotConvertibleError("label: must be true or false")
        return ChatExample([*system_messages(row), *messages_of(row.get("messages"), "messages")], tools_of(row), label)
