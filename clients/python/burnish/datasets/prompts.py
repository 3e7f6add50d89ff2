"""Rows of prompts that the model itself answers while it learns.

`{"input": {"messages", "tools"?, "parallel_tool_calls"?}, "reference"?: str}`; the reference is for rewards that
compare with it.
"""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.messages import unknown_keys
from burnish.datasets.turns import check_input, plain_input
from burnish.datasets.wording import json_kind


class PromptRows:
    """The `RowFormat` of prompts, for the method `name`."""

    plain_text = False

    def __init__(self, name: str) -> None:
        self.name = name

    def check_row(self, row: Row) -> list[str]:
        """Return what is wrong with a row; see `RowFormat.check_row`."""
        problems: list[str] = []
        check_input(row, problems)
        reference = row.get("reference")
        if reference is None:
            pass  # a prompt alone
        elif not isinstance(reference, str):
            problems.append(f"reference: must be a string, not {json_kind(reference)}; leave the key out for none")
        elif not reference or reference.isspace():
            problems.append("reference: is empty; leave the key out if there is none")
        problems.extend(unknown_keys("", row, ("input", "reference")))
        return problems

    def count_plain_strings(self, row: Row, texts: list[str]) -> int:
        """Count the strings of a plain row, with a reference or without; see `RowFormat.count_plain_strings`."""
        strings = plain_input(row, texts)
        if len(row) == 1:
            return strings
        reference = row.get("reference")
        if not strings or len(row) != 2 or type(reference) is not str or not reference or reference.isspace():
            return 0
        texts.append(reference)
        return strings + 2
