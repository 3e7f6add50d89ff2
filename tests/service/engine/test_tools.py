"""Calls in an answer's text are found in every way in which the text may be cut."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.chat.schemas import ToolCall
from service.engine.tools import CallReader

CALL = '<tool_call>\n{"name": "天气", "arguments": {"city": "北京"}}\n</tool_call>'


def read(text: str, cuts: list[int]) -> tuple[str, list[ToolCall]]:
    reader, said, calls = CallReader(), "", list[ToolCall]()
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        shown, found = reader.add_text(text[start:end])
        said, calls = said + shown, calls + found
    shown, found = reader.finish_text()
    return said + shown, calls + found


@given(st.lists(st.integers(0, 500), max_size=8))
def test_a_call_is_found_however_the_text_is_cut(cuts: list[int]) -> None:
    said, calls = read(f"Let me look.{CALL} and {CALL}", cuts)
    assert said == "Let me look. and "
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("天气", {"city": "北京"})
    ] * 2
    assert len({call.id for call in calls}) == 2


@given(st.text("<>tol_ca{}", max_size=40), st.lists(st.integers(0, 50), max_size=5))
def test_text_that_is_not_a_call_stays_text(text: str, cuts: list[int]) -> None:
    said, calls = read(text, cuts)
    assert said == text
    assert not calls


def test_a_broken_call_stays_text_and_an_unclosed_one_counts() -> None:
    assert read("<tool_call>{oops</tool_call>!", [])[0] == "<tool_call>{oops</tool_call>!"
    assert read('<tool_call>{"arguments": {}}</tool_call>', [])[1] == []
    said, calls = read('ok <tool_call>{"name": "f", "arguments": "{}"}', [5])
    assert (said, calls[0].function.name, calls[0].function.arguments) == ("ok ", "f", "{}")


def test_lists_in_lists_in_lists_are_text() -> None:
    text = f"<tool_call>{'[' * 50_000}</tool_call>"
    assert read(text, []) == (text, [])
