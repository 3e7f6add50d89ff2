"""What a key may look like; see `Storage` for the rules."""

from __future__ import annotations

import re

from service.storage.errors import InvalidKey

TEMPORARY_FOLDER = ".tmp"
MAX_SEGMENT = 255
MAX_KEY = 900
_SEGMENT = re.compile(r"[A-Za-z0-9._=-]+")


def check_key(key: str) -> str:
    """Return `key`. Raises InvalidKey."""
    reason = _find_fault(key)
    if reason:
        raise InvalidKey(key, reason)
    return key


def is_key(key: str) -> bool:
    """Return whether `key` obeys the rules."""
    return _find_fault(key) is None


def folder_of(prefix: str) -> str:
    """Return a prefix without its last slash, "" for the empty one. Raises InvalidKey."""
    return check_key(prefix.removesuffix("/")) if prefix else ""


def _find_fault(key: str) -> str | None:
    segments = key.split("/")
    if len(key) > MAX_KEY:
        return f"it is longer than {MAX_KEY} characters"
    if segments[0] == TEMPORARY_FOLDER:
        return f"{TEMPORARY_FOLDER!r} is reserved"
    for segment in segments:
        if not segment:
            return "it has an empty segment"
        if segment in (".", ".."):
            return "'.' and '..' are not allowed"
        if len(segment) > MAX_SEGMENT:
            return f"a segment is longer than {MAX_SEGMENT} characters"
        if not _SEGMENT.fullmatch(segment):
            return "use A-Z a-z 0-9 . _ = - and / only"
    return None


def check_range(start: int, end: int | None) -> None:
    """Raise ValueError unless 0 <= start <= end."""
    if start < 0 or (end is not None and end < start):
        raise ValueError(f"the range from {start} to {end} is not one of bytes: use 0 <= start <= end")
