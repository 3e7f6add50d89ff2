"""Mistral: `[TOOL_CALLS]` and a JSON list, or since 2025 `[TOOL_CALLS]name[ARGS]{…}` for each call."""

from __future__ import annotations

import re

from trainer.engine.answer_format.forms.json_calls import read_json_calls
from trainer.engine.answer_format.grammar import CallForm, CallMarks
from trainer.engine.answer_format.parts import CallText, OfferedTools, collect_calls, load_json, make_call

_OPENING = "[TOOL_CALLS]"
_NAMED_CALL = re.compile(r"\s*([\w.\-]+)\s*(?:\[CALL_ID\][A-Za-z0-9_-]*)?(?:\[ARGS\])?\s*(\{.*)", re.DOTALL)


def _read_mistral_calls(body: str, tools: OfferedTools) -> list[CallText] | None:
    calls: list[CallText | None] = []
    for part in body.split(_OPENING):
        named_call = _NAMED_CALL.fullmatch(part)
        calls += (read_json_calls(part, tools) or [None]) if named_call is None else [_read_named_call(named_call)]
    return collect_calls(calls)


def _read_named_call(match: re.Match[str]) -> CallText | None:
    try:
        return make_call(match[1], load_json(match[2]))
    except ValueError:
        return None


MISTRAL = CallForm("mistral", (CallMarks(_OPENING, (), _read_mistral_calls),), inner_marks=("[CALL_ID]", "[ARGS]"))
