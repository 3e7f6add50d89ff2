from __future__ import annotations

import pytest

from burnish.datasets import ROW_FORMATS
from tests.fixtures.conversation_rows import ANSWER, BAD_ROWS, GOOD_ROWS, USER, row

FORMAT = ROW_FORMATS["supervised"]


@pytest.mark.parametrize("name", GOOD_ROWS)
def test_a_good_row_has_no_problem(name: str) -> None:
    assert FORMAT.check_row(GOOD_ROWS[name]) == []


@pytest.mark.parametrize("case", range(len(BAD_ROWS)))
def test_a_bad_row_gets_a_sentence_with_its_place(case: int) -> None:
    bad, sentence = BAD_ROWS[case]
    assert FORMAT.check_row(bad) == [sentence]


def test_rows_of_an_older_format_name_the_new_one() -> None:
    problems = FORMAT.check_row({"prompt": "x", "completion": "y"})
    assert problems[0] == "messages: is missing; a row needs a list of messages"
    assert "write them as messages of user and assistant" in problems[1]


def test_all_problems_of_a_row_are_reported_in_order() -> None:
    problems = FORMAT.check_row(row({"role": "robot"}, USER | {"content": 1}, 7, tools={}, odd=1))
    assert [problem.split(":")[0] for problem in problems] == [
        "messages[0].role",
        "messages[1].content",
        "messages[2]",
        "tools",
        "odd",
    ]


def test_long_values_are_cut_in_the_sentence() -> None:
    problem = FORMAT.check_row(row({"role": "机器人" * 1000}, ANSWER))[0]
    assert len(problem) < 200
    assert "…" in problem
