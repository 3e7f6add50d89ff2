"""How values of a row are named in sentences about them."""

from __future__ import annotations

import json
import re


def json_kind(value: object) -> str:
    """Name the JSON type of a value, with its article."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def quote_key(text: str) -> str:
    """Return a key as it is if it is a plain word, else quoted and cut."""
    return text if re.fullmatch(r"\w{1,40}", text) else quote_value(text)


def quote_value(value: object) -> str:
    """Return a value as JSON, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"
