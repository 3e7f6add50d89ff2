from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.datasets import ROW_FORMATS, ItemRows, check_rows, drop_null_keys, guess_format
from tests.fixtures.row_tables import BAD_ROWS, GOOD_ROWS
from tests.fixtures.rows import USER, labelled, pair, ranked


@pytest.mark.parametrize("name", GOOD_ROWS)
def test_a_good_row_has_no_problem(name: str) -> None:
    method, row = GOOD_ROWS[name]
    assert ROW_FORMATS[method].check_row(row) == []


@pytest.mark.parametrize("case", range(len(BAD_ROWS)))
def test_a_bad_row_gets_a_sentence_that_begins_with_the_place(case: int) -> None:
    method, row, problem = BAD_ROWS[case]
    problems = ROW_FORMATS[method].check_row(row)
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
    assert found.check_row(row) == []
    alike = ({"dpo", "orpo", "reward"}, {"ppo", "grpo"})
    assert found.name == method or any({found.name, method} <= names for names in alike)


def test_the_fields_of_a_grader_must_be_in_every_row() -> None:
    rows = ItemRows([("答案",), ("facts", "year"), ("tags", 1)])
    good = {"messages": [USER], "答案": "巴黎", "facts": {"year": 1900}, "tags": ["a", "b"]}
    assert rows.check_row(good) == []
    bad = {"messages": [USER], "facts": {"age": 3}, "tags": ["a"]}
    assert rows.check_row({**good, "facts": {"year": None}}) == ["facts.year: is missing, and the grader asks for it"]
    assert rows.check_row(bad) == [
        "答案: is missing, and the grader asks for it",
        "facts.year: is missing, and the grader asks for it",
        "tags[1]: is missing, and the grader asks for it",
    ]
    lines = [orjson.dumps(row) for row in (good, {"messages": [USER], "答案": "好"}, good)]
    summary = check_rows([b"\n".join(lines)], ItemRows([("答案",), ("facts",)]))
    assert [(problem.line, problem.reason) for problem in summary.problems] == [
        (2, "facts: is missing, and the grader asks for it")
    ]


@pytest.mark.parametrize("empty", ["", None])
def test_what_a_grader_looks_for_is_not_empty(empty: str | None) -> None:
    row = orjson.dumps({"messages": [USER], "答案": empty, "note": ""})
    good = orjson.dumps({"messages": [USER], "答案": "巴黎", "note": ""})
    summary = check_rows([b"\n".join([good, row, good])], ItemRows([("答案",), ("note",)], [("答案",)]))
    (problem,) = summary.problems
    assert problem.line == 2
    fault = "is missing, and the grader asks for it" if empty is None else "is empty, and the grader compares answers"
    assert problem.reason.startswith(f"答案: {fault}")


def test_a_prompt_alone_is_not_a_row_for_a_grader() -> None:
    found = guess_format({"messages": [USER]})
    assert found is not None
    assert found.name == "supervised"


def test_unknown_keys_give_nothing_away() -> None:
    assert guess_format({"question": "x"}) is None


KEYS = st.sampled_from(
    ["input", "messages", "role", "content", "responses", "message", "rank", "score", "output", "label"]
)
CHAT_KEYS = ["name", "weight", "tool_calls", "tool_call_id", "tools", "reference", "responses", "label", "问题"]


def add_nulls(value: Any, keys: list[str]) -> Any:
    """Return a value with nulls in each of its objects, under those of the keys that it does not have."""
    if isinstance(value, dict):
        return {key: add_nulls(child, keys) for key, child in value.items()} | {
            key: None for key in keys if key not in value
        }
    return [add_nulls(child, keys) for child in value] if isinstance(value, list) else value


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(GOOD_ROWS)), st.lists(st.sampled_from(CHAT_KEYS), max_size=4))
def test_nulls_change_nothing_about_a_good_row(name: str, keys: list[str]) -> None:
    method, row = GOOD_ROWS[name]
    assert ROW_FORMATS[method].check_row(add_nulls(row, keys)) == []


@pytest.mark.parametrize("case", range(len(BAD_ROWS)))
def test_nulls_change_nothing_about_a_bad_row(case: int) -> None:
    method, row, problem = BAD_ROWS[case]
    found = ROW_FORMATS[method].check_row(add_nulls(row, CHAT_KEYS))
    assert any(reason.startswith(problem.split(":")[0]) for reason in found), found
    assert ROW_FORMATS[method].check_row(drop_null_keys(row))


SCALARS = st.none() | st.booleans() | st.integers(-2, 3) | st.floats(allow_nan=False) | st.sampled_from(["", "user"])


def either(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)


JSON = st.recursive(SCALARS, either, max_leaves=12)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, JSON, max_size=5), st.sampled_from(sorted(ROW_FORMATS)))
def test_any_object_gets_an_answer(row: dict[str, Any], method: str) -> None:
    for candidate in (row, pair(**row), ranked(1, 2) | row, labelled(**row)):
        assert all(isinstance(problem, str) for problem in ROW_FORMATS[method].check_row(candidate))
