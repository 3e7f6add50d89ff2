"""Rows of supervised fine-tuning: a conversation with assistant messages to imitate.

`{"messages": [{role, content, name?, weight?, …}], "tools"?, "parallel_tool_calls"?}`
"""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.messages import Conversation, check_messages, check_options, plain_messages, unknown_keys

_KEYS = frozenset({"messages", "tools", "parallel_tool_calls"})


class SupervisedRows:
    """The `RowFormat` of conversations."""

    name = "supervised"
    plain_text = False

    def check_row(self, row: Row) -> list[str]:
        """Return what is wrong with a row; see `RowFormat.check_row`."""
        problems: list[str] = []
        if "messages" in row:
            conversation = check_messages("messages", row["messages"], problems)
            if not problems:
                _check_lesson(conversation, problems)
        else:
            problems.append("messages: is missing; a row needs a list of messages")
        check_options("", row, problems)
        problems.extend(unknown_keys("", row, _KEYS))
        return problems

    def count_plain_strings(self, row: Row, texts: list[str]) -> int:
        """Count the strings of a plain row that the assistant ends; see `RowFormat.count_plain_strings`."""
        strings, last = plain_messages(row.get("messages"), texts)
        return strings + 1 if len(row) == 1 and last == "assistant" else 0


def _check_lesson(conversation: Conversation, problems: list[str]) -> None:
    if not conversation.assistants:
        problems.append("messages: has no assistant message; there would be nothing to learn")
    elif not conversation.trained:
        problems.append("messages: every assistant message has weight 0; there would be nothing to learn")
