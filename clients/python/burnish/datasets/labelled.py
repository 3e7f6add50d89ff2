"""Rows of single outputs that were found good or bad.

`{"input": {"messages", "tools"?, "parallel_tool_calls"?}, "output": […], "label": true | false}`
"""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.messages import unknown_keys
from burnish.datasets.turns import check_input, check_output, plain_input, plain_output
from burnish.datasets.wording import json_kind


class LabelledRows:
    """The `RowFormat` of labelled outputs."""

    name = "kto"
    plain_text = False

    def check_row(self, row: Row) -> list[str]:
        """Return what is wrong with a row; see `RowFormat.check_row`."""
        problems: list[str] = []
        prompt = check_input(row, problems)
        if "output" in row:
            check_output("output", row["output"], prompt, problems)
        else:
            problems.append("output: is missing; a row needs a list of the assistant's messages")
        if "label" not in row:
            problems.append("label: is missing; use true for a good output, false for a bad one")
        elif not isinstance(row["label"], bool):
            problems.append(f"label: must be true (a good output) or false (a bad one), not {json_kind(row['label'])}")
        problems.extend(unknown_keys("", row, ("input", "output", "label")))
        return problems

    def count_plain_strings(self, row: Row, texts: list[str]) -> int:
        """Count the strings of a plain row; see `RowFormat.count_plain_strings`."""
        prompt = plain_input(row, texts)
        output = plain_output(row.get("output"), texts)
        if not prompt or not output or len(row) != 3 or type(row.get("label")) is not bool:
            return 0
        return prompt + output + 2
