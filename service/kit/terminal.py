"""Text on a terminal."""

from __future__ import annotations


def replace_unprintable(text: str) -> str:
    """Return text as one line without control characters: a name must not steer the terminal that shows it."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
