"""Rows of supervised fine-tuning: a conversation whose assistant messages are to be imitated.

`{"messages": [{role, content, name?, weight?, …}], "tools"?, "parallel_tool_calls"?}`
"""

from __future__ import annotations

from service.datasets.base import Row
from service.datasets.messages import Conversation, check_messages, check_tools, unknown_keys
from service.datasets.wording import kind

_KEYS = frozenset({"messages", "tools", "parallel_tool_calls"})


class SupervisedRows:
    """The `RowFormat` of conversations."""

    name = "supervised"

    def check(self, row: Row) -> list[str]:
        """Return what is wrong with a row; see `RowFormat.check`."""
        problems: list[str] = []
        if "messages" in row:
            seen = check_messages("messages", row["messages"], problems)
            if not problems:
                _check_lesson(seen, problems)
        else:
            problems.append("messages: is missing; a row needs a list of messages")
        if row.get("tools") is not None:
            check_tools("tools", row["tools"], problems)
        parallel = row.get("parallel_tool_calls")
        if parallel is not None and not isinstance(parallel, bool):
            problems.append(f"parallel_tool_calls: must be true or false, not {kind(parallel)}")
        problems.extend(unknown_keys("", row, _KEYS))
        return problems


def _check_lesson(seen: Conversation, problems: list[str]) -> None:
    if not seen.assistants:
        problems.append("messages: has no assistant message; there would be nothing to learn")
    elif not seen.trained:
        problems.append("messages: every assistant message has weight 0; there would be nothing to learn")
