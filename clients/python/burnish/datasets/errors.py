"""What is wrong with a dataset."""

from __future__ import annotations


class InvalidLineError(ValueError):
    """A line that is not a row. The message says what is wrong with it; `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


class UnreadableError(ValueError):
    """A file that cannot be read on, or that has an unknown format. The message says why."""


class NotConvertibleError(ValueError):
    """A row that a converter cannot make anything of. The message begins with the place."""
