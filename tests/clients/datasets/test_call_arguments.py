"""Arguments of calls: the text that was given, in the shape that trains."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.datasets import ROW_FORMATS
from burnish.datasets.conversion import Conversion
from tests.fixtures.conversation_rows import ANSWER, USER, call, calling, row
from tests.fixtures.rows import GOOD, INPUT

GIVEN = '{"价格":  1.10, "big": 1E+2, "b": 1, "a": [ ], "name": "n", "arguments": {"x": 0.50}, "text": "\\u5317\\"{"}'
DEEP = '{"a":' + "[" * 100 + "]" * 100 + "}"


def lines_of(arguments_json: str) -> dict[str, bytes]:
    """A call whose arguments stand in the file as given here, in each way to write one."""
    text = json.dumps('{"name": "f", "arguments": ' + arguments_json + "}")
    function = '{"name": "f", "arguments": ' + arguments_json + "}"
    tail = ', {"role": "assistant", "content": "好"}]}'
    start = '{"messages": [{"role": "user", "content": "问"}, {"role": "assistant", '
    return {
        "tool_calls": (
            start + '"tool_calls": [{"id": "c", "type": "function", "function": ' + function + "}]}" + tail
        ).encode(),
        "bare tool_calls": (start + '"tool_calls": [' + function + "]}" + tail).encode(),
        "function_call": (start + '"function_call": ' + function + "}" + tail).encode(),
        "sharegpt": (
            '{"conversations": [{"from": "human", "value": "问"}, {"from": "function_call", "value": ' + text + "}]}"
        ).encode(),
    }


def arguments_of(line: bytes) -> str:
    conversion = Conversion("supervised")
    made = [json.loads(written) for written in conversion.lines("a.jsonl", [line])]
    assert len(made) == 1, conversion.refused
    return made[0]["messages"][1]["tool_calls"][0]["function"]["arguments"]


@pytest.mark.parametrize("way", lines_of("{}"))
def test_arguments_stay_the_text_that_was_given(way: str) -> None:
    """As an object, as JSON text, and as JSON text that was encoded once more."""
    once = json.dumps(GIVEN, ensure_ascii=False)
    for written in (GIVEN, once, json.dumps(once)):
        assert arguments_of(lines_of(written)[way]) == GIVEN


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just("arguments"), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.text(max_size=4) | st.just("name"), JSON, max_size=3), st.sampled_from([None, 1]), st.booleans()
)
def test_any_object_of_arguments_comes_through_as_text(value: dict[str, Any], indent: int | None, escape: bool) -> None:
    if "\\u0000" in json.dumps(value):
        return
    written = json.dumps(value, indent=indent, ensure_ascii=escape).replace("\n", " ")
    for line in lines_of(written).values():
        assert arguments_of(line) == written


def test_a_property_named_arguments_stays_an_object() -> None:
    schema = {"type": "object", "properties": {"arguments": {"type": "object"}, "名": {"arguments": {"a": 1}}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    text = 'she said "arguments": {"x": 1}'
    conversion = Conversion("supervised")
    given_row = row(USER | {"content": text}, ANSWER, tools=[tool])
    (line,) = conversion.lines("a.jsonl", [json.dumps(given_row).encode()])
    assert json.loads(line) == given_row


def test_arguments_encoded_twice_are_refused_by_the_check_with_what_to_do() -> None:
    twice = call(function={"name": "f", "arguments": json.dumps('{"城市": "北京"}')})
    assert ROW_FORMATS["supervised"].check_row(row(USER, calling(twice))) == [
        "messages[1].tool_calls[0].function.arguments: was encoded twice, as JSON text inside of JSON text: "
        "burnish data convert mends it"
    ]


def test_depth_is_checked_inside_of_arguments() -> None:
    deep = call(function={"name": "f", "arguments": DEEP})
    place = "tool_calls[0].function.arguments: is nested deeper than 100 levels"
    assert ROW_FORMATS["supervised"].check_row(row(USER, calling(deep))) == [f"messages[1].{place}"]
    pair = {"input": INPUT, "preferred_output": [calling(deep)], "non_preferred_output": [GOOD]}
    assert ROW_FORMATS["dpo"].check_row(pair) == [f"preferred_output[0].{place}"]
    brackets = call(function={"name": "f", "arguments": json.dumps({"文": "[{" * 200})})
    assert ROW_FORMATS["supervised"].check_row(row(USER, calling(brackets))) == []
    for written in (DEEP, json.dumps(DEEP), json.dumps(json.dumps(DEEP))):
        for line in lines_of(written).values():
            conversion = Conversion("supervised")
            assert list(conversion.lines("a.jsonl", [line])) == []
            assert "is nested deeper than 100 levels" in conversion.refused[0][1]


@pytest.mark.parametrize("arguments", ["5", "[1]", "true", '"{city}"', '"[]"', '"\\"[1]\\""'])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    for line in lines_of(arguments).values():
        conversion = Conversion("supervised")
        assert list(conversion.lines("a.jsonl", [line])) == []
        assert "arguments: " in conversion.refused[0][1]
