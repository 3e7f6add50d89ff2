"""MiniMax-M2 and DeepSeek V3.2: `<invoke name="…"><parameter name="…">value</parameter></invoke>`, tags prefixed."""

from __future__ import annotations

import re
from html import unescape

from trainer.engine.answer_format.grammar import CallForm, CallMarks
from trainer.engine.answer_format.parts import CallText, OfferedTools, ReadCalls, collect_calls, load_json, make_call


def make_invoke_reader(prefix: str) -> ReadCalls:
    """Return a reader of calls with tags of that prefix."""
    tag = re.escape(prefix)
    invoke = re.compile(rf'\s*<{tag}invoke name="([^"]+)">')
    parameter = re.compile(
        rf'\s*<{tag}parameter name="([^"]+)"(?: string="(true|false)")?>(.*?)</{tag}parameter>'
        rf"(?=\s*(?:<{tag}parameter |</{tag}invoke>))",
        re.DOTALL,
    )
    end = re.compile(rf"\s*</{tag}invoke>\s*")

    def read_invoke_tags(body: str, tools: OfferedTools) -> list[CallText] | None:
        calls: list[CallText | None] = []
        place = 0
        while place < len(body):
            opening = invoke.match(body, place)
            if opening is None:
                return None
            name, arguments = unescape(opening[1]), dict[str, object]()
            place = opening.end()
            while argument := parameter.match(body, place):
                key = unescape(argument[1])
                arguments[key] = _read_argument(tools, name, key, argument[3], argument[2])
                place = argument.end()
            closing = end.match(body, place)
            if closing is None:
                return None
            place = closing.end()
            calls.append(make_call(name, arguments))
        return collect_calls(calls)

    return read_invoke_tags


def _read_argument(tools: OfferedTools, name: str, key: str, text: str, is_string: str | None) -> object:
    if is_string == "true":
        return text
    if is_string == "false":
        try:
            return load_json(text)
        except ValueError:
            return text
    return tools.read_argument(name, key, text)


INVOKE_FORMS = (
    CallForm("minimax", (CallMarks("<minimax:tool_call>", ("</minimax:tool_call>",), make_invoke_reader("")),)),
    CallForm(
        "deepseek-v3.2",
        (CallMarks("<｜DSML｜function_calls>", ("</｜DSML｜function_calls>",), make_invoke_reader("｜DSML｜")),),
        inner_marks=("｜DSML｜",),
    ),
)
