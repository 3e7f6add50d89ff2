"""GLM-4.5 to 4.7: a name, then `<arg_key>key</arg_key><arg_value>value</arg_value>` for each argument."""

from __future__ import annotations

import re

from trainer.engine.answer_format.grammar import CallForm, CallMarks
from trainer.engine.answer_format.parts import CallText, OfferedTools, collect_calls, make_call

_NAME = re.compile(r"\s*([\w.\-]+)\s*")
_ARGUMENT = re.compile(
    r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>\s*(?=<arg_key>|\Z)",
    re.DOTALL,
)


def _read_glm_call(body: str, tools: OfferedTools) -> list[CallText] | None:
    match = _NAME.match(body)
    if match is None:
        return None
    name, arguments, place = match[1], dict[str, object](), match.end()
    while place < len(body):
        argument = _ARGUMENT.match(body, place)
        if argument is None:
            return None
        key = argument[1].strip()
        arguments[key] = tools.read_argument(name, key, argument[2])
        place = argument.end()
    return collect_calls([make_call(name, arguments)])


GLM = CallForm(
    "glm",
    (CallMarks("<tool_call>", ("</tool_call>",), _read_glm_call),),
    inner_marks=("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
)
