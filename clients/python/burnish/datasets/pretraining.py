"""Rows of pre-training: a document each. `{"text": str}`"""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.messages import unknown_keys
from burnish.datasets.wording import json_kind


class TextRows:
    """The `RowFormat` of plain documents."""

    name = "pretraining"
    plain_text = True

    def check_row(self, row: Row) -> list[str]:
        """Return what is wrong with a row; see `RowFormat.check_row`."""
        problems: list[str] = []
        text = row.get("text")
        if "text" not in row:
            problems.append("text: is missing; a row needs the document's text")
        elif not isinstance(text, str):
            problems.append(f"text: must be a string, not {json_kind(text)}")
        elif not text or text.isspace():
            problems.append("text: is empty")
        problems.extend(unknown_keys("", row, ("text",)))
        return problems

    def count_plain_strings(self, row: Row, texts: list[str]) -> int:
        """Count the strings of a good row: always two; see `RowFormat.count_plain_strings`."""
        text = row.get("text")
        if len(row) != 1 or type(text) is not str or not text or text.isspace():
            return 0
        texts.append(text)
        return 2
