from __future__ import annotations

from typing import Any

import pytest

from tests.trainer.graders.scenes import check, graded, refusal
from trainer.graders import GRADER, grader_models, leaf_graders, python_sources
from trainer.graders.formula import Formula


def multi(formula: str, **graders: dict[str, Any]) -> dict[str, Any]:
    return {"type": "multi", "name": "both", "graders": graders, "calculate_output": formula}


RIGHT, LIKE = check(), check(name="similar", operation="like", reference="黎")


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("a + b", 5.0),
        ("a - b / 2", 0.5),
        ("2*a^2", 8.0),
        ("-a^2", -4.0),
        ("2^3^2", 512.0),
        ("(a + b) * 2", 10.0),
        ("min(a, b, 1) + max(a, b)", 4.0),
        ("abs(a - b) + floor(2.7) + ceil(2.1)", 6.0),
        ("exp(0) + sqrt(a + 2) + log(1)", 3.0),
        (" 1e-1 * a ", 0.2),
        ("a**b", 8.0),
        ("+a", 2.0),
    ],
)
def test_a_formula_has_its_value(formula: str, value: float) -> None:
    assert Formula(formula).evaluate_formula({"a": 2.0, "b": 3.0}) == pytest.approx(value)


@pytest.mark.parametrize("formula", ["1/(a-a)", "log(a-a)", "sqrt(-a)", "9^9^9^9", "exp(exp(exp(a+9)))", "(-a)^0.5"])
def test_a_formula_without_a_finite_value_is_reported(formula: str) -> None:
    result = graded(multi(formula, a=RIGHT))
    assert (result.reward, result.errors.formula_parse_error) == (0.0, True)
    assert result.sub_rewards == {"a": 1.0}
    assert result.errors.messages[0].startswith("both: the formula ")


@pytest.mark.parametrize(
    ("formula", "why"),
    [
        ("a + c", "names 'c', which is not a grader: a, b are"),
        ("a.real", "'a.real' has no place in a formula"),
        ("__import__('os').system('true')", "has no place in a formula"),
        ("(lambda: a)()", "has no place in a formula"),
        ("a if b else 1", "has no place in a formula"),
        ("[a for a in b]", "has no place in a formula"),
        ("a and b", "has no place in a formula"),
        ("a > b", "has no place in a formula"),
        ("a % b", "has no place in a formula"),
        ("'a' * 9", "has no place in a formula"),
        ("True", "has no place in a formula"),
        ("2j", "has no place in a formula"),
        ("pow(a, b)", "has no place in a formula"),
        ("min(a)", "min takes 2 to 16 arguments"),
        ("sqrt(a, b)", "sqrt takes one argument"),
        ("max(*a)", "max takes 2 to 16"),
        ("max(a, *b)", "has no place in a formula"),
        ("max(a, b, key=abs)", "has no place in a formula"),
        ("a +", "cannot be read"),
        ("a; b", "cannot be read"),
        ("a\0", "cannot be read"),
        ("(" * 400 + "a" + ")" * 400, "cannot be read"),
        ("-" * 900 + "a", "nested more than 50 deep"),
        ("9" * 900, "too large"),
        ("1e999", "too large"),
        ("a" * 1001, "at most 1000 characters"),
        ("", "at least 1 character"),
    ],
)
def test_text_that_is_not_a_formula_is_refused(formula: str, why: str) -> None:
    assert why in refusal(multi(formula, a=RIGHT, b=LIKE))


def test_graders_are_combined() -> None:
    grader = multi("0.75 * 正确 + 0.25 * similar", 正确=RIGHT, similar=LIKE)
    whole, half = graded(grader, "巴黎"), graded(grader, "黎明")
    assert (whole.reward, whole.sub_rewards) == (1.0, {"正确": 1.0, "similar": 1.0})
    assert (half.reward, half.sub_rewards) == (0.25, {"正确": 0.0, "similar": 1.0})


def test_names_that_python_takes_for_the_same_are_the_same() -> None:
    assert graded(multi("ﬁt", ﬁt=RIGHT)).reward == 1.0  # a ligature


def test_a_grader_that_fails_leaves_no_reward() -> None:
    result = graded(multi("1 - b", a=RIGHT, b=check(input="{{item.missing}}")))
    assert (result.reward, result.sub_rewards) == (0.0, {"a": 1.0, "b": 0.0})
    assert result.errors.invalid_variable_error
    assert result.errors.messages == ["b: {{item.missing}} has no value: no 'missing'"]


def test_the_flags_of_all_graders_are_reported() -> None:
    result = graded(multi("a", a=check(input="{{item.x}}"), b=check(input="{{sample.output_json}}")))
    assert (result.errors.invalid_variable_error, result.errors.sample_parse_error) == (True, True)
    assert len(result.errors.messages) == 2


def test_openais_schema_has_one_grader_there() -> None:
    grader = {"type": "multi", "name": "one", "graders": RIGHT, "calculate_output": "right * 2"}
    assert graded(grader).reward == 2.0
    assert GRADER.validate_python(grader).model_dump(exclude_unset=True) == grader


def test_wrong_parts_are_refused_by_their_place() -> None:
    assert "at least 1 item" in refusal(multi("1"))
    assert "at most 16 items" in refusal(multi("1", **{f"g{number}": RIGHT for number in range(17)}))
    inner = multi("a", a=RIGHT)
    assert "does not match any of the expected tags" in refusal(multi("a", a=inner))
    assert "valid dictionary" in refusal({**multi("a"), "graders": [RIGHT]})


def test_a_graders_fields_are_listed() -> None:
    python = {"type": "python", "name": "p", "source": "def grade(sample, item):\n    return 1"}
    judge = {"type": "score_model", "name": "j", "model": "tiny", "input": [{"role": "user", "content": "?"}]}
    label = {**judge, "type": "label_model", "labels": ["a"], "passing_labels": ["a"], "model": "ft:x"}
    grader = GRADER.validate_python(multi("p", p=python, j=judge, l=label))
    assert grader_models(grader) == {"tiny", "ft:x"}
    assert python_sources(grader) == (python["source"],)
    assert list(leaf_graders(grader)) == ["p", "j", "l"]
    alone = GRADER.validate_python(python)
    assert (list(leaf_graders(alone)), grader_models(alone)) == (["p"], frozenset())
    assert graded(python).errors.python_grader_server_error_type == "disabled"
