from __future__ import annotations

from typing import Any

import pytest

from tests.trainer.graders.scenes import check, graded, refusal
from trainer.graders import GRADER, Sample, grade_sample
from trainer.graders.templates import MAX_FILLED

ROW: dict[str, Any] = {
    "answer": "巴黎",
    "正确答案": "东京",
    "tags": [{"label": "城市"}, {"label": "city"}],
    "a b": {"c.d": 3},
    "n": 0.5,
    "yes": True,
    "nothing": None,
    "full-name": "Li Hua",
    "sly": "{{item.answer}}",
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "巴黎"}'}}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{item.answer}}", "巴黎"),
        ("<{{ item.answer }}|{{item.answer}}>", "<巴黎|巴黎>"),
        ("{{item.正确答案}}", "东京"),
        ("{{item.tags[1].label}}", "city"),
        ("{{item.tags.0.label}}", "城市"),
        ('{{item["a b"]["c.d"]}}', "3"),
        ("{{item['a b']}}", '{"c.d": 3}'),
        ("{{item.n}} {{item.yes}} {{item.nothing}}", "0.5 true null"),
        ("{{item.tags[0]}}", '{"label": "城市"}'),
        ("{{item.full-name}}", "Li Hua"),
        ("{{item.sly}}", "{{item.answer}}"),
        ("{{sample.output_json.city}}", "巴黎"),
        ("{{sample.output_json}}", '{"city": "巴黎"}'),
        ("{{sample.output_text}}", '{"city": "巴黎"}'),
        ("{{sample.output_tools[0].function.name}}", "weather"),
        ("{{sample.choices[0].message.content}}", '{"city": "巴黎"}'),
        ('{"a": {"b": 1}} {item.answer} {{', '{"a": {"b": 1}} {item.answer} {{'),
    ],
)
def test_a_template_is_filled(template: str, text: str) -> None:
    grader = GRADER.validate_python(check(input=template, reference="{{item.expected}}"))
    result = grade_sample(grader, item={**ROW, "expected": text}, sample=Sample.from_text('{"city": "巴黎"}', [CALL]))
    assert (result.reward, result.errors.messages) == (1.0, [])


@pytest.mark.parametrize(
    "template",
    [
        "{{item.other}}",
        "{{item.tags[2]}}",
        "{{item.tags.label}}",
        "{{item.answer.length}}",
        "{{item.nothing.x}}",
        "{{sample.output_tools[0]}}",
        "{{sample.other}}",
    ],
)
def test_a_missing_name_is_reported(template: str) -> None:
    result = graded(check(input=template), "巴黎", ROW)
    assert (result.reward, result.failed, result.errors.invalid_variable_error) == (0.0, True, True)
    assert result.errors.messages[0].startswith(f"right: {template} has no value")


@pytest.mark.parametrize("text", ["not JSON", '{"a": NaN}', "[" * 100_000, "9" * 5000, ""])
def test_an_answer_that_is_not_json_has_no_output_json(text: str) -> None:
    result = graded(check(input="{{sample.output_json.a}}"), text)
    assert (result.reward, result.errors.sample_parse_error) == (0.0, True)
    assert not result.errors.invalid_variable_error


def test_a_row_without_fields_is_reported() -> None:
    for item in ([], "text", 3):
        assert graded(check(), "巴黎", item).errors.invalid_variable_error


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{answer}}", "must begin with item. or sample."),
        ("{{items.answer}}", "must begin with item. or sample."),
        ("{{}}", "must begin with item. or sample."),
        ("{{item.a b}}", "cannot be read at ' b'"),
        ("{{item[a]}}", "cannot be read at '[a]'"),
        ("{{item.}}", "cannot be read at '.'"),
        ("{{item." + "a" * 2000 + "}}", "longer than 1000 characters"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused(template: str, why: str) -> None:
    assert why in refusal(check(reference=f"an answer: {template}"))


def test_a_template_cannot_grow_without_bounds() -> None:
    result = graded(check(input="{{item.long}}" * 200), "x", {"long": "长" * (MAX_FILLED // 10), "answer": ""})
    assert result.errors.truncated_observation_error
    hostile = "{{" * 100_000 + "item}}"
    assert graded(check(input=hostile, reference=hostile), "x", {}).reward == 1.0
