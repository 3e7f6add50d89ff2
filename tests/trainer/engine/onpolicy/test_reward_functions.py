from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trainer.contract.methods.onpolicy import FunctionReward
from trainer.contract.methods.ppo import PpoHyperparameters
from trainer.engine.onpolicy.reward_functions import score_texts


def score(function: Any, parameters: dict[str, Any], text: str, reference: str | None = None) -> float:
    given = FunctionReward(function=function, parameters=parameters)
    (value,) = score_texts(given.function, given.parsed(), [text], [reference])
    return value


@pytest.mark.parametrize(
    ("function", "parameters", "text", "reference", "expected"),
    [
        ("length", {"target": 4}, "天气很好", None, 0.0),
        ("length", {"target": 4}, "天气很好啊啊", None, -0.5),
        ("length", {"target": 4, "unit": "words"}, "it's a fine day", None, 0.0),
        ("length", {"target": 2}, "", None, -1.0),
        ("contains", {"words": ["Fine", "rain"]}, "a FINE day", None, 0.5),
        ("contains", {"words": ["天气"]}, "今天天气很好", None, 1.0),
        ("lexicon", {"weights": {"good": 1.0, "bad": -1.0}}, "Good good bad goodness", None, 1 / 3),
        ("lexicon", {"weights": {"好": 1.0, "坏": -2.0}}, "很好,不坏", None, -0.5),
        ("lexicon", {"weights": {"good": 1.0}}, "nothing here", None, 0.0),
        ("exact_match", {}, " Paris\n", "Paris", 1.0),
        ("exact_match", {}, "paris", "Paris", 0.0),
        ("exact_match", {"ignore_case": True}, "paris", "Paris", 1.0),
        ("json_valid", {}, '{"城市": "北京"}', None, 1.0),
        ("json_valid", {}, "{'a': 1}", None, 0.0),
        ("json_valid", {"match_reference": True}, '{"a":1}', '{ "a" : 1 }', 1.0),
        ("json_valid", {"match_reference": True}, '{"a":2}', '{ "a" : 1 }', 0.0),
        ("json_valid", {}, "[" * 100000, None, 0.0),
    ],
)
def test_functions(
    function: str, parameters: dict[str, Any], text: str, reference: str | None, expected: float
) -> None:
    assert score(function, parameters, text, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ({"function": "length", "parameters": {}}, "parameters.target"),
        ({"function": "length", "parameters": {"target": 0}}, "parameters.target"),
        ({"function": "contains", "parameters": {"words": []}}, "parameters.words"),
        ({"function": "lexicon", "parameters": {"weights": {"a": "b"}}}, "parameters.weights.a"),
        ({"function": "exact_match", "parameters": {"code": "1"}}, "parameters.code"),
        ({"function": "os.system", "parameters": {}}, "length"),
        ({"model": ""}, "model"),
    ],
)
def test_bad_rewards_are_refused_by_name(reward: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PpoHyperparameters.model_validate({"reward": reward})
    assert said in str(caught.value)
