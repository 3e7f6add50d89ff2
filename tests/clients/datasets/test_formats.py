from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.datasets import ROW_FORMATS, ItemRows, check_rows, guess_format
from tests.clients.datasets.rows import BAD, GOOD, INPUT, SYSTEM, USER, Row, labelled, pair, prompt, ranked, without

FUNCTION = {"name": "f", "arguments": "{}"}
CALL = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": FUNCTION}]}
ANSWERED = [USER, CALL, {"role": "tool", "tool_call_id": "c", "content": "巴黎"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
PARTS = {"role": "assistant", "content": [{"type": "text", "text": "باريس"}, {"type": "text", "text": " 😀"}]}

GOOD_ROWS: dict[str, tuple[str, Row]] = {
    "a document": ("pretraining", {"text": "从前有座山。\nقصة قديمة"}),
    "a pair": ("dpo", pair()),
    "a pair for orpo": ("orpo", pair()),
    "older names": (
        "dpo",
        {"input": INPUT, "preferred_completion": [GOOD], "non_preferred_completion": [BAD]},
    ),
    "several turns": ("dpo", pair(preferred_output=[GOOD, USER, GOOD])),
    "a pair with tools": ("dpo", pair(input={"messages": ANSWERED, "tools": TOOLS, "parallel_tool_calls": False})),
    "a pair that begins with a call": ("dpo", pair(preferred_output=[CALL])),
    "a ranking": ("reward", ranked(2, 1)),
    "a ranking with a tie": ("reward", ranked(1, 2, 2, 3)),
    "a ranking with scores": ("reward", ranked(1, 2, 2, scores=(9.5, 4, 4))),
    "64 responses": ("reward", ranked(*range(1, 65))),
    "a pair for reward": ("reward", pair()),
    "a prompt": ("ppo", prompt(SYSTEM, USER)),
    "a prompt after turns": ("grpo", prompt(USER, GOOD, USER, reference="باريس")),
    "a prompt after a tool": ("ppo", prompt(*ANSWERED)),
    "a prompt for a grader": ("reinforcement", {"messages": [SYSTEM, USER], "答案": ["باريس", 1, {"x": None}]}),
    "a prompt with tools for a grader": ("reinforcement", {"messages": ANSWERED, "tools": TOOLS, "reference": ""}),
    "a good output": ("kto", labelled()),
    "a bad output": ("kto", labelled(label=False, output=[BAD, USER, BAD])),
}

BAD_ROWS: list[tuple[str, Row, str]] = [
    ("pretraining", {}, "text: is missing; a row needs the document's text"),
    ("pretraining", {"text": 1}, "text: must be a string, not a number"),
    ("pretraining", {"text": " \n"}, "text: is empty"),
    ("pretraining", {"text": "x", "url": "y"}, "url: is not a known key; use text"),
    ("dpo", without(pair(), "input"), "input: is missing; a row needs an object with the prompt's messages"),
    ("dpo", pair(input="hi"), "input: must be an object with the prompt's messages, not a string"),
    ("dpo", pair(input={}), "input.messages: is missing; the prompt is a list of messages"),
    ("dpo", pair(input={"messages": []}), "input.messages: is empty; a row needs at least one message"),
    ("dpo", pair(input={"messages": [SYSTEM]}), "input.messages: has no user message; there is nothing to answer"),
    (
        "dpo",
        pair(input={"messages": [USER, GOOD]}),
        "input.messages[1]: the prompt ends with an assistant message; end it where the assistant is to answer",
    ),
    ("dpo", pair(input={**INPUT, "x": 1}), "input.x: is not a known key; use messages, parallel_tool_calls, tools"),
    ("dpo", pair(input={**INPUT, "tools": {}}), "input.tools: must be a list of at least one tool"),
    ("dpo", pair(input={**INPUT, "parallel_tool_calls": 1}), "input.parallel_tool_calls: must be true or false"),
    (
        "dpo",
        without(pair(), "preferred_output"),
        "preferred_output: is missing; a pair needs preferred_output and non_preferred_output",
    ),
    ("dpo", pair(preferred_completion=[GOOD]), "preferred_output: is given twice, here and as the older"),
    ("dpo", pair(preferred_output="hi"), "preferred_output: must be a list of the assistant's messages, not a string"),
    ("dpo", pair(non_preferred_output=[]), "non_preferred_output: is empty"),
    ("dpo", pair(preferred_output=[GOOD | {"content": ""}]), "preferred_output[0].content: is empty"),
    ("dpo", pair(preferred_output=[USER]), "preferred_output[0].role: is user where assistant is due"),
    ("dpo", pair(preferred_output=[GOOD, GOOD]), "preferred_output[1].role: is assistant where user is due"),
    ("dpo", pair(preferred_output=[GOOD, USER]), "preferred_output[1]: an output ends with an assistant message"),
    ("dpo", pair(preferred_output=[GOOD | {"weight": 0}]), "preferred_output: every assistant message has weight 0"),
    ("dpo", pair(non_preferred_output=[GOOD]), "preferred_output and non_preferred_output: are the same"),
    ("orpo", pair(non_preferred_output=[PARTS]), "preferred_output and non_preferred_output: are the same"),
    (
        "dpo",
        pair(non_preferred_output=[GOOD | {"content": "باريس 😀 \n"}]),
        "preferred_output and non_preferred_output",
    ),
    ("dpo", pair(chosen="x"), "chosen: is not a known key; this is another format: burnish data convert rewrites it"),
    ("reward", {"input": INPUT}, "responses: is missing; a row needs a list of ranked responses"),
    ("reward", ranked(1) | {"responses": {}}, "responses: must be a list of ranked responses, not an object"),
    ("reward", ranked(1), "responses: has 1; a ranking needs from 2 to 64 responses"),
    ("reward", ranked(*range(1, 66)), "responses: has 65; a ranking needs from 2 to 64 responses"),
    ("reward", ranked(1, 1, 1), "responses: all have the same rank; there is no order to learn"),
    ("reward", ranked(1, 0), "responses[1].rank: is 0; use a whole number, 1 for the best"),
    ("reward", ranked(1, True), "responses[1].rank: is true; use a whole number, 1 for the best"),
    ("reward", ranked(1, 1.5), "responses[1].rank: is 1.5; use a whole number, 1 for the best"),
    ("reward", ranked(1, 2, scores=(1, "2")), "responses[1].score: must be a number, not a string"),
    ("reward", ranked(1, 2, scores=(1, None)), "responses[1].score: is missing; give every response of a row a score"),
    ("reward", ranked(1, 2, 3, scores=(5, 1, 3)), "responses[1].score: is lower than that of a response with a worse"),
    ("reward", {"input": INPUT, "responses": [1, 2]}, "responses[0]: must be an object with message and rank"),
    ("reward", {"input": INPUT, "responses": [{}, {}]}, "responses[0].message: is missing"),
    (
        "reward",
        {"input": INPUT, "responses": [{"message": USER, "rank": 1}, {"message": GOOD, "rank": 2}]},
        "responses[0].message.role: is user; a response is the assistant's",
    ),
    (
        "reward",
        {"input": INPUT, "responses": [{"message": GOOD, "rank": 1}, {"message": GOOD, "rank": 2}]},
        "responses[1]: says the same as responses[0] with another rank (2 and 1)",
    ),
    ("reward", pair(non_preferred_output=[GOOD]), "preferred_output and non_preferred_output: are the same"),
    ("ppo", prompt(USER, GOOD), "input.messages[1]: the prompt ends with an assistant message"),
    ("ppo", prompt(USER, reference=3), "reference: must be a string, not a number"),
    ("grpo", prompt(USER, reference=" "), "reference: is empty"),
    ("grpo", prompt(USER, output=[GOOD]), "output: is not a known key; use input, reference"),
    ("reinforcement", {"input": INPUT}, "messages: is missing; a row needs a list of the prompt's messages"),
    ("reinforcement", {"messages": [USER, GOOD]}, "messages[1]: the prompt ends with an assistant message"),
    ("reinforcement", {"messages": [SYSTEM]}, "messages: has no user message; there is nothing to answer"),
    ("reinforcement", {"messages": [USER], "tools": []}, "tools: must be a list of at least one tool"),
    ("reinforcement", {"messages": [USER], "parallel_tool_calls": 1}, "parallel_tool_calls: must be true or false"),
    ("kto", without(labelled(), "label"), "label: is missing; use true for a good output, false for a bad one"),
    ("kto", labelled(label=1), "label: must be true (a good output) or false (a bad one), not a number"),
    ("kto", without(labelled(), "output"), "output: is missing; a row needs a list of the assistant's messages"),
    ("kto", labelled(output=[USER]), "output[0].role: is user where assistant is due"),
]


@pytest.mark.parametrize("name", GOOD_ROWS)
def test_a_good_row_has_no_problem(name: str) -> None:
    method, row = GOOD_ROWS[name]
    assert ROW_FORMATS[method].check(row) == []


@pytest.mark.parametrize("case", range(len(BAD_ROWS)))
def test_a_bad_row_gets_a_sentence_that_begins_with_the_place(case: int) -> None:
    method, row, problem = BAD_ROWS[case]
    problems = ROW_FORMATS[method].check(row)
    assert any(found.startswith(problem) for found in problems), problems


def test_a_file_names_the_line() -> None:
    rows = [ranked(1, 2), ranked(1), ranked(2, 1)]
    summary = check_rows([b"\n".join(orjson.dumps(row) for row in rows)], ROW_FORMATS["reward"])
    assert [problem.line for problem in summary.problems] == [2]
    assert summary.rows == 2


def test_every_format_is_registered_under_its_name() -> None:
    assert {name: row_format.name for name, row_format in ROW_FORMATS.items()} == {name: name for name in ROW_FORMATS}
    assert [name for name, row_format in ROW_FORMATS.items() if row_format.plain_text] == ["pretraining"]


@pytest.mark.parametrize("name", GOOD_ROWS)
def test_the_keys_give_the_format_away(name: str) -> None:
    method, row = GOOD_ROWS[name]
    found = guess_format(row)
    assert found is not None
    assert found.check(row) == []
    alike = ({"dpo", "orpo", "reward"}, {"ppo", "grpo"})
    assert found.name == method or any({found.name, method} <= names for names in alike)


def test_what_a_grader_asks_for_must_be_in_every_row() -> None:
    rows = ItemRows([("答案",), ("facts", "year"), ("tags", 1)])
    good = {"messages": [USER], "答案": "巴黎", "facts": {"year": None}, "tags": ["a", "b"]}
    assert rows.check(good) == []
    bad = {"messages": [USER], "facts": {"age": 3}, "tags": ["a"]}
    assert rows.check(bad) == [
        "答案: is missing, and the grader asks for it",
        "facts.year: is missing, and the grader asks for it",
        "tags[1]: is missing, and the grader asks for it",
    ]
    lines = [orjson.dumps(row) for row in (good, {"messages": [USER], "答案": "好"}, good)]
    summary = check_rows([b"\n".join(lines)], ItemRows([("答案",), ("facts",)]))
    assert [(problem.line, problem.reason) for problem in summary.problems] == [
        (2, "facts: is missing, and the grader asks for it")
    ]


def test_a_prompt_alone_is_no_row_for_a_grader() -> None:
    found = guess_format({"messages": [USER]})
    assert found is not None
    assert found.name == "supervised"


def test_unknown_keys_give_nothing_away() -> None:
    assert guess_format({"question": "x"}) is None


KEYS = st.sampled_from(
    ["input", "messages", "role", "content", "responses", "message", "rank", "score", "output", "label"]
)
SCALARS = st.none() | st.booleans() | st.integers(-2, 3) | st.floats(allow_nan=False) | st.sampled_from(["", "user"])


def either(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)


JSON = st.recursive(SCALARS, either, max_leaves=12)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, JSON, max_size=5), st.sampled_from(sorted(ROW_FORMATS)))
def test_any_object_gets_an_answer(row: dict[str, Any], method: str) -> None:
    for candidate in (row, pair(**row), ranked(1, 2) | row, labelled(**row)):
        assert all(isinstance(problem, str) for problem in ROW_FORMATS[method].check(candidate))
