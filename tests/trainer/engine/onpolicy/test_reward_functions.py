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
        *(("json_valid", {}, text, None, 0.0) for text in ("NaN", "-Infinity", '{"价": Infinity}', "[NaN]")),
        *(
            ("json_valid", {"match_reference": True}, text, reference, expected)
            for text, reference, expected in (
                ('{"ok":1}', '{"ok":true}', 0.0),
                ('{"ok":true}', '{"ok":1}', 0.0),
                ("[0, false]", "[false, 0]", 0.0),
                ("[0, false]", "[0.0, false]", 1.0),
                ('{"城": [{"a": 1.50}]}', '{"城": [{"a": 1.5}]}', 1.0),
                ('{"城": [{"a": true}]}', '{"城": [{"a": 1}]}', 0.0),
                ("[1, 2]", "[1]", 0.0),
                ('{"a": null}', "{}", 0.0),
                ("0", "null", 0.0),
                ("NaN", "NaN", 0.0),
            )
        ),
        *(
            ("lexicon", {"weights": {term: 1.0, "absent": -1.0}}, text, None, expected)
            for term, text, expected in (
                ("thank you", "Well, Thank You!", 1.0),
                ("thank you", "thank\n you.", 1.0),
                ("thank you", "thank youth", 0.0),
                ("thank you", "I thank, you go", 0.0),
                (" thank  you ", "thank you", 1.0),
                ("e-mail", "an E-mail.", 1.0),
                ("e-mail", "the-mail", 0.0),
                ("c++", "I like C++, it's fine", 1.0),
                ("c++", "abc++", 0.0),
                (".net", "use .NET", 1.0),
                ("don't", "I don't", 1.0),
                ("t know", "I don't know", 0.0),
                ("and it", "and it's", 0.0),
                (":-)", "你好:-)", 1.0),
                ("非常 感谢", "非常 感谢你", 1.0),
                ("谢谢", "我谢谢你", 1.0),
            )
        ),
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
        ({"function": "lexicon", "parameters": {"weights": {" \n": 1}}}, "is only white space"),
        ({"function": "exact_match", "parameters": {"code": "1"}}, "parameters.code"),
        ({"function": "os.system", "parameters": {}}, "length"),
        ({"model": ""}, "model"),
    ],
)
def test_bad_rewards_are_refused_by_name(reward: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PpoHyperparameters.model_validate({"reward": reward})
    assert said in str(caught.value)
