"""A body is bounded before it is parsed, and a fault in it is named by its place."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from service.kit import json_body
from service.kit.errors import InvalidRequest
from service.kit.json_body import MAX_DEPTH, MAX_ELEMENTS, count_elements, parse_body

_HALF = "\ud800"


def number_of_values(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(number_of_values, value.values()))
    return 1 + sum(map(number_of_values, value)) if isinstance(value, list) else 1


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2, {"b": "x,y[{"}], "逗、号": ["、", '"', "\\", '\\"', "a\\\\"]},
        ["," * 40_000, '"' * 9_000, "\\" * 9_001, "[{" * 20_000],
        {"text": '引号 " 与反斜杠 \\" , [ {' * 5_000, "n": list(range(50))},
    ],
)
def test_what_strings_hold_is_not_counted(value: Any) -> None:
    """Text of any length is one value; empty lists and objects may count for one more each."""
    text = json.dumps(value, ensure_ascii=False).encode()
    counted = count_elements(text)
    assert number_of_values(value) <= counted <= max(MAX_ELEMENTS, 2 * number_of_values(value) + 1)
    assert parse_body(text)[0] == value


@pytest.mark.parametrize(
    "body",
    [
        b'{"' + b"A" * 60_000 + b'": [' + b"0," * 30_000 + b"0]}",
        b"[" + b'"",' * 300_000 + b'""]',
        b"[" + b"{}," * 300_000 + b"{}]",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a": "' + b'\\"' * 9 + b'", "b": [' + b"0," * MAX_ELEMENTS + b"0]}",
        b'{"a": "\\\\", "b": [' + b"0," * MAX_ELEMENTS + b"0]}",
        ("[" + ",".join(f'"键{n}"' for n in range(MAX_ELEMENTS + 9)) + "]").encode(),
    ],
)
def test_more_values_than_the_bound_are_refused_before_they_are_parsed(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is built for them: the parser is not called."""
    monkeypatch.setattr(json_body.json, "loads", pytest.fail)
    with pytest.raises(InvalidRequest, match=f"more than {MAX_ELEMENTS} values"):
        parse_body(body)


def test_a_body_in_utf_16_is_refused() -> None:
    """Its quotes cannot be counted like those of UTF-8."""
    with pytest.raises(InvalidRequest, match="UTF-8"):
        parse_body(json.dumps({"a": ["x"] * 99_999}).encode("utf-16"))


def test_nesting_is_bounded() -> None:
    """One level less is taken."""
    allowed = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    parse_body(allowed)
    with pytest.raises(InvalidRequest, match=f"deeper than {MAX_DEPTH}"):
        parse_body(b'{"a":' + allowed + b"}")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"messages": [{"content": "好"}, {"content": "a\0b"}]}, "messages.1.content"),
        ({"a": {"b": [1.0, float("nan")]}}, "a.b.1"),
        ({"a": {"b": [{_HALF: 1}]}}, "a.b.0"),
        ({"键": [[["x" + _HALF]]]}, "键.0.0.0"),
    ],
)
def test_a_fault_is_named_by_its_place(body: Any, place: str) -> None:
    """The place is built for the fault alone."""
    with pytest.raises(InvalidRequest) as refused:
        parse_body(json.dumps(body).encode())
    assert refused.value.param == place


def test_a_long_key_above_many_values_costs_what_the_values_cost() -> None:
    """Places of all elements would be a thousand times the body."""
    body = b'{"' + b"A" * 60_000 + b'": [' + b"0," * (MAX_ELEMENTS - 9) + b"0]}"
    began = time.process_time()
    parse_body(body)
    assert time.process_time() - began < 0.5
