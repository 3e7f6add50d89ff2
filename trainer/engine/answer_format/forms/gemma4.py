"""Gemma 4: `<|tool_call>call:name{key:value}<tool_call|>`, text between `<|"|>` marks."""

from __future__ import annotations

import re

from trainer.engine.answer_format.grammar import CallForm, CallMarks
from trainer.engine.answer_format.parts import CallText, OfferedTools, collect_calls, load_json, make_call

_QUOTE = '<|"|>'
_NAME = re.compile(r"\s*call:([^{]+)")
_KEY = re.compile(r"\s*([^:{}\[\],]+?)\s*:")
_BARE = re.compile(r"[^,}\]\s]+")
_SPACE = re.compile(r"\s*")
_WORDS: dict[str, object] = {"None": None, "True": True, "False": False}


def _read_gemma4_call(body: str, _tools: OfferedTools) -> list[CallText] | None:
    name = _NAME.match(body)
    try:
        if name is None:
            return None
        arguments, place = _read_value(body, name.end())
        return None if body[place:].strip() else collect_calls([make_call(name[1].strip(), arguments)])
    except (ValueError, IndexError, RecursionError):
        return None


def _read_value(text: str, place: int) -> tuple[object, int]:
    """Return the value at a place and where it ends. Raises ValueError or IndexError if it is malformed."""
    place = _skip_space(text, place)
    if text.startswith(_QUOTE, place):
        return _read_quoted(text, place)
    if text[place] == "{":
        return _read_object(text, place)
    if text[place] == "[":
        return _read_list(text, place)
    bare = _BARE.match(text, place)
    if bare is None:
        raise ValueError("no value")
    return _WORDS[bare[0]] if bare[0] in _WORDS else load_json(bare[0]), bare.end()


def _read_quoted(text: str, place: int) -> tuple[str, int]:
    end = text.index(_QUOTE, place + len(_QUOTE))
    return text[place + len(_QUOTE) : end], end + len(_QUOTE)


def _read_object(text: str, place: int) -> tuple[dict[str, object], int]:
    values: dict[str, object] = {}
    place = _skip_space(text, place + 1)
    while text[place] != "}":
        if text.startswith(_QUOTE, place):
            key, place = _read_quoted(text, place)
            place = _skip_space(text, place)
            if text[place] != ":":
                raise ValueError("no colon")
            place += 1
        else:
            bare_key = _KEY.match(text, place)
            if bare_key is None:
                raise ValueError("no key")
            key, place = bare_key[1], bare_key.end()
        values[key], place = _read_value(text, place)
        place = _skip_comma(text, place, "}")
    return values, place + 1


def _read_list(text: str, place: int) -> tuple[list[object], int]:
    values: list[object] = []
    place = _skip_space(text, place + 1)
    while text[place] != "]":
        value, place = _read_value(text, place)
        values.append(value)
        place = _skip_comma(text, place, "]")
    return values, place + 1


def _skip_comma(text: str, place: int, closing: str) -> int:
    place = _skip_space(text, place)
    if text[place] == ",":
        return _skip_space(text, place + 1)
    if text[place] != closing:
        raise ValueError("neither a comma nor the end")
    return place


def _skip_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return place if match is None else match.end()


GEMMA4 = CallForm("gemma4", (CallMarks("<|tool_call>", ("<tool_call|>",), _read_gemma4_call),), inner_marks=(_QUOTE,))
