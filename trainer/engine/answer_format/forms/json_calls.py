"""Calls as JSON between marks: Hermes, Qwen 2.5 and 3, Granite, Phi-4, Jamba, Command R7B, Apertus and others."""

from __future__ import annotations

import json
from typing import Any, cast

from trainer.engine.answer_format.grammar import CallForm, CallMarks
from trainer.engine.answer_format.parts import CallText, OfferedTools, collect_calls, load_json, make_call

_NAMES, _ARGUMENTS = ("name", "tool_name"), ("arguments", "parameters")
_OTHER_KEYS = {"id", "type", "index", "call_id", "tool_call_id"}


def read_json_calls(body: str, _tools: OfferedTools) -> list[CallText] | None:
    """Read one call, or a list of calls."""
    try:
        value = load_json(body)
    except ValueError:
        return None
    return collect_calls(map(read_json_call, cast("list[Any]", value) if isinstance(value, list) else [value]))


def read_json_call(value: Any) -> CallText | None:
    """Read `{"name": …, "arguments": {…}}`, or with the keys that other families have; None if it is no call.

    An object with keys that no call has is none: what they say would be lost.
    """
    if not isinstance(value, dict):
        return None
    call = cast("dict[str, Any]", value)
    if not call.keys() <= {*_NAMES, *_ARGUMENTS, *_OTHER_KEYS}:
        return None
    name = next((call[key] for key in _NAMES if key in call), None)
    arguments = next((call[key] for key in _ARGUMENTS if key in call), {})
    return make_call(name, arguments)


def read_json_sequence(body: str, _tools: OfferedTools) -> list[CallText] | None:
    """Read calls that follow each other, with nothing but white space, commas or semicolons in between."""
    decoder, calls, place = json.JSONDecoder(strict=False), list[CallText | None](), 0
    text = body.strip()
    while place < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return None
        calls.append(read_json_call(value))
        if calls[-1] is None:
            return None
        while place < len(text) and text[place] in " \n\t,;":
            place += 1
    return collect_calls(calls)


def _read_apertus_calls(body: str, _tools: OfferedTools) -> list[CallText] | None:
    """Read `[{"name": {…arguments…}}]`."""
    try:
        value = load_json(body)
    except ValueError:
        return None
    calls = cast("list[Any]", value) if isinstance(value, list) else [value]
    pairs = [cast("dict[str, Any]", call) if isinstance(call, dict) else {} for call in calls]
    return collect_calls(make_call(*next(iter(pair.items()))) if len(pair) == 1 else None for pair in pairs)


HERMES = CallForm("hermes", (CallMarks("<tool_call>", ("</tool_call>",), read_json_calls),))
"""Also the form in which calls are written for templates that have none."""

JSON_FORMS = (
    HERMES,
    CallForm("jamba", (CallMarks("<tool_calls>", ("</tool_calls>",), read_json_calls),)),
    CallForm("granite", (CallMarks("<|tool_call|>", ("<|/tool_call|>",), read_json_calls),)),
    CallForm("nemotron", (CallMarks("<TOOLCALL>", ("</TOOLCALL>",), read_json_calls),)),
    CallForm("cohere", (CallMarks("<|START_ACTION|>", ("<|END_ACTION|>",), read_json_calls),)),
    CallForm("apertus", (CallMarks("<|tools_prefix|>", ("<|tools_suffix|>",), _read_apertus_calls),)),
    CallForm(
        "gigachat",
        (CallMarks("<|message_sep|>\n\nfunction call<|role_sep|>\n", ("<|message_sep|>",), read_json_calls),),
    ),
)
