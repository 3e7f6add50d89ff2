"""Qwen3-Coder, Qwen3.5, Nemotron-3 and Seed-OSS: `<function=name><parameter=key>value</parameter></function>`."""

from __future__ import annotations

import re

from trainer.engine.answer_format.grammar import CallForm, CallMarks
from trainer.engine.answer_format.parts import CallText, OfferedTools, collect_calls, make_call

_FUNCTION = re.compile(r"\s*<function=([^>\s]+)>")
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>(?=\s*(?:<parameter=|</function>))", re.DOTALL)
_END = re.compile(r"\s*</function>\s*")


def _read_function_tags(body: str, tools: OfferedTools) -> list[CallText] | None:
    calls: list[CallText | None] = []
    place = 0
    while place < len(body):
        function = _FUNCTION.match(body, place)
        if function is None:
            return None
        name, arguments = function[1], dict[str, object]()
        place = function.end()
        while parameter := _PARAMETER.match(body, place):
            arguments[parameter[1]] = tools.read_argument(name, parameter[1], parameter[2])
            place = parameter.end()
        end = _END.match(body, place)
        if end is None:
            return None
        place = end.end()
        calls.append(make_call(name, arguments))
    return collect_calls(calls)


FUNCTION_TAG_FORMS = (
    CallForm("qwen3-coder", (CallMarks("<tool_call>", ("</tool_call>",), _read_function_tags),)),
    CallForm("seed-oss", (CallMarks("<seed:tool_call>", ("</seed:tool_call>",), _read_function_tags),)),
)
