"""What one grading may cost, whatever the grader and the answer are: processor seconds, and memory for texts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.trainer.graders.scenes import check, graded, refusal
from trainer.graders import Grade, GraderQuestion, Reply, Tools
from trainer.graders.base import MOST_CELLS, MOST_CHARACTERS_TOGETHER
from trainer.graders.similarity import MOST_CHARACTERS, MOST_TOKENS
from trainer.graders.templates import MOST_STEPS, MOST_TEMPLATES

MARKS = "a" + "\u0301\u0316" * (MOST_CHARACTERS // 2 - 1)
MOST_SECONDS = 10.0
"""Of a processor, with room for a slow one: these took from seconds to minutes without bounds."""


def similar(metric: str, **more: Any) -> dict[str, Any]:
    grader = check(type="text_similarity", evaluation_metric=metric, **more)
    del grader["operation"]
    return grader


def multi(**graders: Any) -> dict[str, Any]:
    return {"type": "multi", "name": "m", "graders": graders, "calculate_output": "+".join(graders)}


def judge(*texts: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text} for text in texts]
    return {"type": "score_model", "name": "j", "model": "tiny", "input": messages, **more}


def says(text: str) -> Tools:
    return Tools(ask=lambda question: Reply(text=text))


def costly(grade: Callable[[], Grade]) -> Grade:
    """Return the grade; it must not cost more than a grading may."""
    began = time.process_time()
    result = grade()
    assert time.process_time() - began < MOST_SECONDS
    return result


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["bleu", "gleu", "meteor", "rouge_1", "rouge_5", "rouge_l", "fuzzy_match"])
def test_marks_without_end_cost_no_more_than_other_text(metric: str) -> None:
    costly(lambda: graded(similar(metric), MARKS, {"answer": MARKS[:-1] + "字"}))


@pytest.mark.parametrize("text", ["a", "字", "\U0001f600"])
def test_two_long_texts_are_not_compared_by_character(text: str) -> None:
    long, other = text * MOST_CHARACTERS, text * (MOST_CHARACTERS - 1) + "尾"
    result = costly(lambda: graded(similar("fuzzy_match"), long, {"answer": other}))
    assert (result.reward, result.errors.truncated_observation_error) == (0.0, True)
    assert f"more than {MOST_CELLS}" in result.errors.messages[0]
    short = text * (MOST_CELLS // MOST_CHARACTERS)
    assert not graded(similar("fuzzy_match"), long, {"answer": short}).failed


def test_many_comparisons_cost_no_more_than_four() -> None:
    text = "".join(chr(0x4E00 + place % 20_000) for place in range(31_000))
    grader = multi(**{f"g{number}": similar("fuzzy_match") for number in range(16)})
    result = costly(lambda: graded(grader, text, {"answer": text[::-1]}))
    assert [reward > 0 for reward in result.sub_rewards.values()] == [True] * 4 + [False] * 12
    assert result.reward == 0
    assert "together, the most of one grading" in result.errors.messages[0]
    few = multi(**{f"g{number}": similar("fuzzy_match") for number in range(4)})
    assert not graded(few, text, {"answer": text[::-1]}).failed


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["bleu", "rouge_l"])
def test_many_graders_of_the_longest_texts_end(metric: str) -> None:
    grader = multi(**{f"g{number}": similar(metric) for number in range(16)})
    result = costly(lambda: graded(grader, "字词" * (MOST_TOKENS // 2), {"answer": "词字" * (MOST_TOKENS // 2)}))
    assert len(result.sub_rewards) == 16


def test_a_template_cannot_repeat_a_value_thousands_of_times() -> None:
    for text in ("{{item}}" * (MOST_TEMPLATES + 1), "{{item" + ".a" * (MOST_STEPS // 4) + "}}"):
        why = refusal(judge(text, text, text, text, text))
        assert f"more than {MOST_TEMPLATES} templates, or more than {MOST_STEPS} names" in why
    assert "names and places" in refusal(check(input="{{sample}}" * MOST_TEMPLATES, reference="{{item}}"))
    graded(check(input="{{item.答}}" * (MOST_TEMPLATES - 1), reference="{{item.答}}"), "x", {"答": "好"})


def test_texts_of_all_graders_together_are_bounded() -> None:
    asked: list[GraderQuestion] = []

    def ask(question: GraderQuestion) -> Reply:
        asked.append(question)
        return Reply(text="1")

    long = judge("{{sample.output_text}}" * 2)
    grader = multi(**{f"g{number}": long for number in range(16)})
    answer = "长" * (MOST_CHARACTERS_TOGETHER // 9)
    result = costly(lambda: graded(grader, answer, tools=Tools(ask=ask)))
    assert (len(asked), result.errors.truncated_observation_error) == (4, True)
    assert "together, the most of one grading" in result.errors.messages[0]
    alone = costly(lambda: graded(judge(*["{{sample.output_text}}"] * 64), answer, tools=Tools(ask=ask)))
    assert "the filled messages have more than" in alone.errors.messages[0]
    assert len(asked) == 4


@pytest.mark.parametrize(
    "said",
    [
        '{"a":' * 20_000,
        '{"a":[' * 10_000 + "1," * 20_000,
        '{"k":"值","b":[1,2,' * 5_000,
        "{" * 70_000,
        '{"' * 100_000,
        "[" * 200_000,
        '{"result": 0.5}' * 10_000 + '{"a":' * 900,
        "9" * 4000,
        " " * 1_000_000 + "x",
    ],
)
def test_a_long_reply_is_read_in_linear_time(said: str) -> None:
    costly(lambda: graded(judge("?"), tools=says(said)))
    label = {"type": "label_model", "name": "l", "model": "tiny", "input": [{"role": "user", "content": "?"}]}
    labels = [f"类{number}" for number in range(256)]
    costly(lambda: graded(multi(l={**label, "labels": labels, "passing_labels": labels}), tools=says(said)))


def test_the_last_result_is_found_among_braces_that_open_nothing() -> None:
    said = "\\frac{a}{b} {x: {1}} " * 1000 + '所以 {"result": 0.25} {再见}'
    assert graded(judge("?"), tools=says(said)).reward == 0.25


@pytest.mark.parametrize("formula", ["9^9^9^9^9^9", "a^-9^9^9", "exp(exp(exp(9)))", "(1e308*10)^a", "-" * 900 + "a"])
def test_a_formula_of_huge_powers_ends(formula: str) -> None:
    began = time.process_time()
    grader = {**multi(a=check()), "calculate_output": formula}
    with suppress(ValueError):  # refused already
        assert graded(grader).reward < 1e300
    assert time.process_time() - began < 1


def test_more_graders_than_may_be_are_counted_before_they_are_read() -> None:
    began = time.process_time()
    why = refusal(multi(**{f"g{number}": {"type": "no such"} for number in range(50_000)}))
    assert "at most 16 items, not 50000" in why
    assert len(why) < 1000
    assert time.process_time() - began < 1


@pytest.mark.parametrize("operation", ["eq", "ne", "like", "ilike"])
def test_long_texts_are_searched_in_linear_time(operation: str) -> None:
    for text, reference in (("a" * 500_000, "a" * 250_000 + "b"), ("ß字" * 250_000, "SS字" * 125_000 + "x")):
        costly(lambda text=text, reference=reference: graded(check(operation=operation), text, {"answer": reference}))


def test_half_a_character_in_a_judges_question_is_accepted() -> None:
    asked: list[GraderQuestion] = []

    def ask(question: GraderQuestion) -> Reply:
        asked.append(question)
        return Reply(text="1")

    answer = json.dumps({"a": "\ud800好"})
    assert graded(judge("{{sample.output_json.a}}"), answer, tools=Tools(ask=ask)).reward == 1.0
    assert asked[0].messages[0]["content"] == "?好"
    asked[0].model_dump_json()
