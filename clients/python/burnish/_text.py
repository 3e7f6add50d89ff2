"""Text of servers, made safe to print on a terminal."""

from __future__ import annotations


def printable_text(text: str) -> str:
    """Return text without control characters: what a server or a file says must not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def printable_line(text: str) -> str:
    """Return text as one line, so that it cannot look like two."""
    return " ".join(printable_text(text).split())


def escape_json(text: str) -> str:
    """Return JSON with control characters in escapes; it means the same.

    JSON itself escapes those below a space alone, and a terminal also obeys DEL and U+0080 to U+009F.
    """
    return "".join(c if c.isprintable() or c == "\n" else _escape_character(c) for c in text)


def _escape_character(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
