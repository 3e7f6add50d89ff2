"""DeepSeek V3, R1 and V3.1, and Kimi K2: a list of calls, each with marks of its own."""

from __future__ import annotations

import re

from trainer.engine.answer_format.grammar import CallForm, CallMarks
from trainer.engine.answer_format.parts import CallText, OfferedTools, collect_calls, load_json, make_call

_BEGIN, _SEPARATOR, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_FENCED = re.compile(r"function<｜tool▁sep｜>([^\n]+)\n```json\n(.*)\n```\s*", re.DOTALL)
_PLAIN = re.compile(r"([^\n<]+)<｜tool▁sep｜>(.*)", re.DOTALL)
_KIMI_BEGIN, _KIMI_END = "<|tool_call_begin|>", "<|tool_call_end|>"
_KIMI_ARGUMENTS = "<|tool_call_argument_begin|>"
# Its ids are `functions.name:0`.
_KIMI = re.compile(r"\s*(?:functions\.)?([\w.\-]+?)(?::\d+)?\s*<\|tool_call_argument_begin\|>(.*)", re.DOTALL)


def _read_deepseek_calls(body: str, _tools: OfferedTools) -> list[CallText] | None:
    return _read_list(body, _BEGIN, _END, (_FENCED, _PLAIN))


def _read_kimi_calls(body: str, _tools: OfferedTools) -> list[CallText] | None:
    return _read_list(body, _KIMI_BEGIN, _KIMI_END, (_KIMI,))


def _read_list(body: str, begin: str, end: str, patterns: tuple[re.Pattern[str], ...]) -> list[CallText] | None:
    lead, *pieces = body.split(begin)
    if lead.strip():
        return None
    return collect_calls(_read_one(piece.strip().removesuffix(end), patterns) for piece in pieces)


def _read_one(text: str, patterns: tuple[re.Pattern[str], ...]) -> CallText | None:
    match = next((match for pattern in patterns if (match := pattern.fullmatch(text))), None)
    try:
        return None if match is None else make_call(match[1].strip(), load_json(match[2]))
    except ValueError:
        return None


DEEPSEEK = CallForm(
    "deepseek",
    (CallMarks("<｜tool▁calls▁begin｜>", ("<｜tool▁calls▁end｜>",), _read_deepseek_calls),),
    inner_marks=(_BEGIN, _SEPARATOR, _END),
)
KIMI_K2 = CallForm(
    "kimi-k2",
    (CallMarks("<|tool_calls_section_begin|>", ("<|tool_calls_section_end|>",), _read_kimi_calls),),
    inner_marks=(_KIMI_BEGIN, _KIMI_ARGUMENTS, _KIMI_END),
)
