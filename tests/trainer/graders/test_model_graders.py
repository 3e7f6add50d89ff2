from __future__ import annotations

from typing import Any

import pytest

from tests.trainer.graders.scenes import check, graded, refusal
from trainer.graders import Failure, GraderQuestion, Reply, TokenUsage, Tools

USAGE = TokenUsage(prompt_tokens=7, completion_tokens=3, total_tokens=10)
INPUT = [
    {"role": "developer", "content": "Grade from 0 to 1."},
    {
        "role": "user",
        "content": [{"type": "input_text", "text": "参考: {{item.answer}}"}, "答: {{sample.output_text}}"],
    },
]
JUDGE: dict[str, Any] = {"type": "score_model", "name": "judge", "model": "tiny", "input": INPUT}
LABELLER: dict[str, Any] = {
    "type": "label_model",
    "name": "label",
    "model": "tiny",
    "input": [{"role": "user", "content": {"type": "output_text", "text": "{{sample.output_text}}"}}],
    "labels": ["好", "bad", "so so"],
    "passing_labels": ["好", "so so"],
}


class Model:
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self, text: str, *, cut: bool = False) -> None:
        self.reply = Reply(text=text, usage=USAGE, cut=cut)
        self.asked: list[GraderQuestion] = []

    def __call__(self, question: GraderQuestion) -> Reply:
        self.asked.append(question)
        return self.reply


def labelled(text: str) -> Any:
    grader = {"type": "multi", "name": "m", "graders": {"label": LABELLER}, "calculate_output": "label"}
    return graded(grader, tools=Tools(ask=Model(text)))


@pytest.mark.parametrize(
    "text",
    [
        "0.5",
        " 0.5\n",
        '{"result": 0.5}',
        '```json\n{"result": 0.5}\n```',
        '理由: {"x": 1} 得分 {"steps": [], "result": 0.5}。',
        '{"result": 0.1} no, {"result": 0.5}',
        '{ {"result": 0.5}',
    ],
)
def test_a_models_number_is_the_reward(text: str) -> None:
    model = Model(text)
    result = graded(JUDGE, tools=Tools(ask=model))
    assert (result.reward, result.failed, result.usage) == (0.5, False, {"tiny": USAGE})
    (question,) = model.asked
    assert question.messages == [
        {"role": "developer", "content": "Grade from 0 to 1."},
        {"role": "user", "content": "参考: 巴黎\n答: 巴黎"},
    ]
    assert question.sampling == {"temperature": 0.0}
    assert question.schema_ is not None
    assert question.schema_["properties"]["result"] == {"type": "number", "minimum": 0.0, "maximum": 1.0}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the model answered ''"),
        ("很好", "it has to say a number"),
        ('"0.5"', "is not a number"),
        ("true", "is not a number"),
        ("null", "is not a number"),
        ("[0.5]", "is not a number"),
        ('{"score": 0.5}', "is not a number"),
        ('{"result": "high"}', "is not a number"),
        ('{"result": NaN}', "lies outside its range"),
        ("1.5", "1.5 lies outside its range, 0 to 1"),
        ("-0.1", "lies outside"),
        ("1e999", "inf lies outside"),
        ("9" * 4000, "lies outside"),
        ("{" * 50_000, "the model answered"),
    ],
)
def test_an_answer_that_is_not_a_score_is_reported(text: str, why: str) -> None:
    result = graded(JUDGE, tools=Tools(ask=Model(text)))
    assert (result.reward, result.errors.model_grader_parse_error, result.usage) == (0.0, True, {"tiny": USAGE})
    assert why in result.errors.messages[0]


def test_the_range_is_the_graders_own() -> None:
    assert graded({**JUDGE, "range": [-10, 10]}, tools=Tools(ask=Model("-7"))).reward == -7.0
    assert "tokens ran out" in graded(JUDGE, tools=Tools(ask=Model("Let me think", cut=True))).errors.messages[0]


def test_sampling_goes_to_the_model_by_chats_names() -> None:
    model = Model("1")
    params = {"max_completions_tokens": 9, "seed": 3, "temperature": 0.7, "top_p": 0.9, "reasoning_effort": "low"}
    graded({**JUDGE, "sampling_params": params}, tools=Tools(ask=model))
    assert model.asked[0].sampling == {"max_completion_tokens": 9, "seed": 3, "top_p": 0.9, "temperature": 0.7}


@pytest.mark.parametrize(
    ("text", "reward"),
    [("好", 1.0), (" so so\n", 1.0), ('{"result": "bad"}', 0.0), ('"好"', 1.0), ('I say {"result": "好"}', 1.0)],
)
def test_a_label_passes_or_not(text: str, reward: float) -> None:
    result = labelled(text)
    assert (result.reward, result.failed, result.usage) == (reward, False, {"tiny": USAGE})


@pytest.mark.parametrize("text", ["", "Good", "好好", "[]", '{"result": ["好"]}', "3"])
def test_an_answer_that_is_not_a_label_is_reported(text: str) -> None:
    assert labelled(text).errors.model_grader_parse_error


def test_a_models_failure_is_reported() -> None:
    def away(_question: GraderQuestion) -> Reply:
        raise Failure("model_grader_server_error", "the engine is away")

    result = graded(JUDGE, tools=Tools(ask=away))
    assert (result.reward, result.usage) == (0.0, {})
    assert result.errors.model_grader_server_error_details == "the engine is away"
    assert graded(JUDGE).errors.model_grader_server_error


def test_tokens_of_one_model_are_added() -> None:
    grader = {
        "type": "multi",
        "name": "m",
        "graders": {"a": JUDGE, "b": JUDGE, "c": {**JUDGE, "model": "other"}, "d": check()},
        "calculate_output": "a + b + c + d",
    }
    result = graded(grader, tools=Tools(ask=Model("0.5")))
    assert result.reward == 2.5
    assert result.usage == {"tiny": USAGE + USAGE, "other": USAGE}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"range": [1, 0]}, "two finite numbers, the lower first"),
        ({"range": [1]}, "at least 2 items"),
        ({"range": [0, float("inf")]}, "two finite numbers"),
        ({"input": []}, "at least 1 item"),
        ({"input": [{"role": "tool", "content": "x"}]}, "'user', 'assistant', 'system' or 'developer'"),
        ({"input": [{"role": "user", "content": "{{other.x}}"}]}, "must begin with item. or sample."),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]},
            "images cannot be graded",
        ),
        ({"input": [{"role": "user", "content": {"type": "input_audio"}}]}, "audio cannot be graded"),
        ({"sampling_params": {"temperature": 3}}, "less than or equal to 2"),
        ({"sampling_params": {"max_tokens": 3}}, "Extra inputs are not permitted"),
        ({"model": ""}, "at least 1 character"),
    ],
)
def test_a_wrong_model_grader_is_refused(change: dict[str, Any], why: str) -> None:
    assert why in refusal({**JUDGE, **change})


def test_passing_labels_must_be_labels() -> None:
    wrong = {**LABELLER, "passing_labels": ["excellent"]}
    grader = {"type": "multi", "name": "m", "graders": {"label": wrong}, "calculate_output": "label"}
    assert "passing_labels has 'excellent', which is not among the labels" in refusal(grader)
