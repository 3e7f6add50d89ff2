"""Documents: `{"text"}` or `{"content"}`, perhaps among other keys; and plain text files (see `reading`)."""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.base import TextExample, require_string


class PlainTextConverter:
    """A document a row."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has a text."""
        return any(isinstance(row.get(key), str) for key in ("text", "content"))

    def convert_row(self, row: Row) -> TextExample:
        """Return the row's `text` as a document."""
        return TextExample(require_string(row, "text" if "text" in row else "content"))
