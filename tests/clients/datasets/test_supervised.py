from __future__ import annotations

from typing import Any

import pytest

from burnish.datasets import ROW_FORMATS

FORMAT = ROW_FORMATS["supervised"]

USER = {"role": "user", "content": "今天天气怎么样?"}
ANSWER = {"role": "assistant", "content": "晴。"}


def row(*messages: object, **more: object) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def call(**changes: object) -> dict[str, Any]:
    function = {"name": "weather", "arguments": '{"city": "北京"}'}
    return {"id": "call_1", "type": "function", "function": function} | changes


def calling(*calls: object) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": list(calls)}


def tool(**changes: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather"} | changes}


RESULT = {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "晴"}'}

GOOD_ROWS: dict[str, dict[str, Any]] = {
    "a question and an answer": row(USER, ANSWER),
    "every role": row({"role": "system", "content": "简洁。"}, {"role": "developer", "content": "x"}, USER, ANSWER),
    "a name and a weight": row(USER | {"name": "李"}, ANSWER | {"weight": 0}, USER, ANSWER | {"weight": 1}),
    "text in parts": row({"role": "user", "content": [{"type": "text", "text": "你好"}]}, ANSWER),
    "a call and its answer": row(USER, calling(call()), RESULT, ANSWER, tools=[tool()], parallel_tool_calls=False),
    "two calls at once": row(
        USER, calling(call(), call(id="call_2")), RESULT | {"tool_call_id": "call_2"}, RESULT, ANSWER
    ),
    "a call at the end": row(USER, calling(call())),
    "a call beside null or empty content": row(
        USER, calling(call()) | {"content": None}, calling(call(id="b")) | {"content": ""}
    ),
    "a tool that returned nothing": row(USER, calling(call()), RESULT | {"content": ""}, ANSWER),
    "an answer saved from an API": row(
        USER, ANSWER | {"refusal": None, "audio": None, "function_call": None, "tool_calls": None, "annotations": []}
    ),
    "a whole declaration": row(USER, ANSWER, tools=[tool(description="d", parameters={"type": "object"}, strict=True)]),
    "no tools": row(USER, ANSWER, tools=None, parallel_tool_calls=None),
    "an assistant alone": row(ANSWER),
}

ROLES = "use system, developer, user, assistant or tool"
BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({}, "messages: is missing; a row needs a list of messages"),
    (row(), "messages: is empty; a row needs at least one message"),
    ({"messages": "hi"}, "messages: must be a list of messages, not a string"),
    ({"messages": None}, "messages: must be a list of messages, not null"),
    (row(USER, "hi", ANSWER), "messages[1]: must be an object with role and content, not a string"),
    (row(USER, ANSWER, {"content": "x"}), f"messages[2].role: is missing; {ROLES}"),
    (row(USER, ANSWER, {"role": "robot"}), f'messages[2].role: "robot" is not a role; {ROLES}'),
    (row({"role": ["user"], "content": "x"}), f'messages[0].role: ["user"] is not a role; {ROLES}'),
    (row({"role": None}), f"messages[0].role: null is not a role; {ROLES}"),
    (
        row({"role": "function", "name": "f", "content": "x"}),
        f'messages[0].role: "function" is not a role (function is deprecated: use tool); {ROLES}',
    ),
    (row({"role": "user"}, ANSWER), "messages[0].content: is missing"),
    (row(USER | {"content": ""}, ANSWER), "messages[0].content: is empty"),
    (row(USER | {"content": " \n"}, ANSWER), "messages[0].content: is empty"),
    (row(USER, ANSWER | {"content": ""}), "messages[1].content: is empty"),
    (
        row(USER, ANSWER | {"content": None}),
        "messages[1].content: must be a string or a list of text parts, not null",
    ),
    (
        row(USER | {"content": 5}, ANSWER),
        "messages[0].content: must be a string or a list of text parts, not a number",
    ),
    (row(USER | {"content": []}, ANSWER), "messages[0].content: is empty"),
    (
        row(USER | {"content": ["x"]}, ANSWER),
        'messages[0].content[0]: must be an object like {"type": "text", "text": "…"}, not a string',
    ),
    (
        row(USER | {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER),
        'messages[0].content[0].type: "image_url" cannot be trained on; only parts of the type "text" can',
    ),
    (row(USER | {"content": [{"type": "text"}]}, ANSWER), "messages[0].content[0].text: must be a string, not null"),
    (row(USER | {"content": [{"type": "text", "text": ""}]}, ANSWER), "messages[0].content[0].text: is empty"),
    (
        row(USER | {"content": [{"type": "text", "text": "x", "cache": 1}]}, ANSWER),
        "messages[0].content[0].cache: is not a known key; use text, type",
    ),
    (row(USER | {"name": 3}, ANSWER), "messages[0].name: must be a string, not a number"),
    (row(USER), "messages: has no assistant message; there would be nothing to learn"),
    (
        row(USER, ANSWER | {"weight": 0}),
        "messages: every assistant message has weight 0; there would be nothing to learn",
    ),
    (row(USER, ANSWER | {"weight": 0.5}), "messages[1].weight: is 0.5; use 0 (do not learn it) or 1"),
    (row(USER, ANSWER | {"weight": 2}), "messages[1].weight: is 2; use 0 (do not learn it) or 1"),
    (row(USER, ANSWER | {"weight": True}), "messages[1].weight: is true; use 0 (do not learn it) or 1"),
    (row(USER, ANSWER | {"weight": "1"}), 'messages[1].weight: is "1"; use 0 (do not learn it) or 1'),
    (
        row(USER | {"weight": 0}, ANSWER),
        "messages[0].weight: is not a known key; only assistant messages have a weight",
    ),
    (
        row(USER, ANSWER | {"mood": 1}),
        "messages[1].mood: is not a known key; use content, name, role, tool_calls, weight",
    ),
    (
        row(USER, ANSWER | {"function_call": {"name": "f"}}),
        "messages[1].function_call: is not a known key; function_call is deprecated: use tool_calls",
    ),
    (
        row(USER, ANSWER | {"refusal": "no"}),
        "messages[1].refusal: is not a known key; put the refusal's text into content",
    ),
    (
        row(USER | {"tool_call_id": "x"}, ANSWER),
        "messages[0].tool_call_id: is not a known key; only tool messages have a tool_call_id",
    ),
    (row(USER, ANSWER, id=7), "id: is not a known key; use messages, parallel_tool_calls, tools"),
    (row(USER, ANSWER, functions=[]), "functions: is not a known key; functions is deprecated: use tools"),
    (
        row(USER, calling()),
        "messages[1].tool_calls: must be a list of at least one call; leave the key out where there are none",
    ),
    (row(USER, calling("x")), "messages[1].tool_calls[0]: must be an object, not a string"),
    (
        row(USER, calling(call(id=None))),
        "messages[1].tool_calls[0].id: must be a string that the tool's answer repeats, not null",
    ),
    (
        row(USER, calling(call(), call())),
        'messages[1].tool_calls[1].id: "call_1" is the id of an earlier call; give each its own',
    ),
    (row(USER, calling(call(type="code"))), 'messages[1].tool_calls[0].type: "code" is not known; use "function"'),
    (
        row(USER, calling(call(index=0))),
        "messages[1].tool_calls[0].index: is not a known key; use function, id, type",
    ),
    (row(USER, calling({"id": "a", "type": "function"})), "messages[1].tool_calls[0].function: is missing"),
    (
        row(USER, calling(call(function={"name": "a b", "arguments": "{}"}))),
        'messages[1].tool_calls[0].function.name: is "a b"; use 1 to 64 of a-z A-Z 0-9 _ -',
    ),
    (
        row(USER, calling(call(function={"name": "a", "arguments": {"city": "x"}}))),
        'messages[1].tool_calls[0].function.arguments: must be a string that holds a JSON object, like "{}", '
        "not an object",
    ),
    (
        row(USER, calling(call(function={"name": "a", "arguments": "{city}"}))),
        "messages[1].tool_calls[0].function.arguments: is not JSON at column 2 of the string: "
        "unexpected character, expected a string key",
    ),
    (
        row(USER, calling(call(function={"name": "a", "arguments": "[]"}))),
        "messages[1].tool_calls[0].function.arguments: must hold a JSON object, not a list",
    ),
    (
        row(USER, calling(call(function={"name": "a", "arguments": "{}", "x": 1}))),
        "messages[1].tool_calls[0].function.x: is not a known key; use arguments, name",
    ),
    (
        row(USER, calling(call()), {"role": "tool", "content": "x"}),
        "messages[2].tool_call_id: is missing; name the call that this message answers",
    ),
    (
        row(USER, calling(call()), RESULT | {"tool_call_id": "call_9"}),
        'messages[2].tool_call_id: "call_9" is the id of no earlier call',
    ),
    (row(USER, calling(call()), RESULT, RESULT), 'messages[3].tool_call_id: "call_1" was answered already'),
    (row(RESULT, USER, ANSWER), 'messages[0].tool_call_id: "call_1" is the id of no earlier call'),
    (
        row(USER, ANSWER, tools=[]),
        "tools: must be a list of at least one tool; leave the key out where there are none",
    ),
    (row(USER, ANSWER, tools=["x"]), "tools[0]: must be an object, not a string"),
    (row(USER, ANSWER, tools=[{"function": {"name": "a"}}]), 'tools[0].type: is missing; use "function"'),
    (
        row(USER, ANSWER, tools=[{"type": "function", "function": {}}]),
        "tools[0].function.name: is missing; use 1 to 64 of a-z A-Z 0-9 _ -",
    ),
    (row(USER, ANSWER, tools=[tool(), tool()]), 'tools[1].function.name: "weather" is declared twice'),
    (
        row(USER, ANSWER, tools=[tool(parameters=[])]),
        "tools[0].function.parameters: must be an object (JSON Schema), not a list",
    ),
    (row(USER, ANSWER, tools=[tool(strict="no")]), "tools[0].function.strict: must be true or false, not a string"),
    (row(USER, ANSWER, parallel_tool_calls=1), "parallel_tool_calls: must be true or false, not a number"),
]


@pytest.mark.parametrize("name", GOOD_ROWS)
def test_a_good_row_has_no_problem(name: str) -> None:
    assert FORMAT.check(GOOD_ROWS[name]) == []


@pytest.mark.parametrize("case", range(len(BAD_ROWS)))
def test_a_bad_row_gets_a_sentence_with_its_place(case: int) -> None:
    bad, sentence = BAD_ROWS[case]
    assert FORMAT.check(bad) == [sentence]


def test_rows_of_an_older_format_are_told_the_new_one() -> None:
    problems = FORMAT.check({"prompt": "x", "completion": "y"})
    assert problems[0] == "messages: is missing; a row needs a list of messages"
    assert "write them as messages of user and assistant" in problems[1]


def test_all_problems_of_a_row_are_told_in_order() -> None:
    problems = FORMAT.check(row({"role": "robot"}, USER | {"content": 1}, 7, tools={}, odd=1))
    assert [problem.split(":")[0] for problem in problems] == [
        "messages[0].role",
        "messages[1].content",
        "messages[2]",
        "tools",
        "odd",
    ]


def test_long_values_are_cut_in_the_sentence() -> None:
    problem = FORMAT.check(row({"role": "机器人" * 1000}, ANSWER))[0]
    assert len(problem) < 200
    assert "…" in problem
