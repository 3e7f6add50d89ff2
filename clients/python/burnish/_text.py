"""Text for people."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text without control characters: what a server or a file says must not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
