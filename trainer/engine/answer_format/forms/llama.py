"""Llama 3.1 to 3.3: calls as JSON without a mark, from the answer's beginning; custom functions in a tag."""

from __future__ import annotations

import re

from trainer.engine.answer_format.forms.json_calls import read_json_sequence
from trainer.engine.answer_format.forms.python_calls import read_python_calls
from trainer.engine.answer_format.grammar import CallForm, CallMarks
from trainer.engine.answer_format.parts import CallText, OfferedTools, collect_calls, load_json, make_call

_TAG = re.compile(r"([\w.\-]+)>(.*)", re.DOTALL)


def _read_tagged_call(body: str, _tools: OfferedTools) -> list[CallText] | None:
    """Read `name>{…arguments…}`, what stands between `<function=` and `</function>`."""
    match = _TAG.fullmatch(body.strip())
    try:
        return None if match is None else collect_calls([make_call(match[1], load_json(match[2]))])
    except ValueError:
        return None


def _read_python_tag(body: str, tools: OfferedTools) -> list[CallText] | None:
    """Read what stands behind `<|python_tag|>`: JSON, or a call of a built-in tool in Python."""
    return read_json_sequence(body, tools) or read_python_calls(body, tools)


LLAMA_FORMS = (
    CallForm(
        "llama-json",
        (
            CallMarks("<|python_tag|>", (), _read_python_tag),
            CallMarks("{", (), read_json_sequence, at_start=True),
        ),
    ),
    CallForm("llama-function-tag", (CallMarks("<function=", ("</function>",), _read_tagged_call),)),
)
