"""Kimi K3: everything in an answer stands between `<|open|>tag<|sep|>` and `<|close|>tag<|sep|>`."""

from __future__ import annotations

import re
from html import unescape

from trainer.engine.answer_format.grammar import CallForm, CallMarks
from trainer.engine.answer_format.parts import CallText, OfferedTools, collect_calls, load_json, make_call

_CALL = re.compile(r'\s*<\|open\|>call tool="([^"]+)"(?: index="\d+")?<\|sep\|>')
_CALL_END = re.compile(r"\s*<\|close\|>call<\|sep\|>\s*")
_JSON = re.compile(r'\s*<\|open\|>json(?: type="object")?<\|sep\|>(.*?)<\|close\|>json<\|sep\|>', re.DOTALL)
_ARGUMENT = re.compile(
    r'\s*<\|open\|>argument key="([^"]+)" type="(\w+)"<\|sep\|>(.*?)<\|close\|>argument<\|sep\|>', re.DOTALL
)


def _read_kimi_k3_calls(body: str, _tools: OfferedTools) -> list[CallText] | None:
    calls: list[CallText | None] = []
    place = 0
    try:
        while place < len(body):
            opening = _CALL.match(body, place)
            if opening is None:
                return None
            arguments, place = _read_arguments(body, opening.end())
            end = _CALL_END.match(body, place)
            if end is None:
                return None
            place = end.end()
            calls.append(make_call(unescape(opening[1]), arguments))
    except ValueError:
        return None
    return collect_calls(calls)


def _read_arguments(body: str, place: int) -> tuple[object, int]:
    """Return a call's arguments and where they end. Raises ValueError if one is malformed."""
    if block := _JSON.match(body, place):
        return load_json(block[1]), block.end()
    arguments: dict[str, object] = {}
    while argument := _ARGUMENT.match(body, place):
        arguments[unescape(argument[1])] = argument[3] if argument[2] == "string" else load_json(argument[3])
        place = argument.end()
    return arguments, place


KIMI_K3 = CallForm(
    "kimi-k3",
    (CallMarks("<|open|>tools<|sep|>", ("<|close|>tools<|sep|>",), _read_kimi_k3_calls),),
    inner_marks=("<|open|>", "<|sep|>", "<|close|>"),
    wrappers=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
)
