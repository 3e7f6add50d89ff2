from __future__ import annotations

import pytest

from tests.trainer.graders.scenes import check, graded, refusal


@pytest.mark.parametrize(
    ("operation", "text", "reference", "reward"),
    [
        ("eq", "巴黎", "巴黎", 1.0),
        ("eq", "巴黎。", "巴黎", 0.0),
        ("eq", "Paris", "paris", 0.0),
        ("ne", "巴黎", "东京", 1.0),
        ("ne", "巴黎", "巴黎", 0.0),
        ("like", "答案是巴黎。", "巴黎", 1.0),
        ("like", "It is paris", "Paris", 0.0),
        ("like", "巴", "巴黎", 0.0),
        ("ilike", "It is PARIS", "paris", 1.0),
        ("ilike", "STRASSE", "straße", 1.0),
        ("ilike", "London", "paris", 0.0),
    ],
)
def test_each_operation(operation: str, text: str, reference: str, reward: float) -> None:
    result = graded(check(operation=operation), text, {"answer": reference})
    assert (result.reward, result.failed, result.sub_rewards, result.usage) == (reward, False, {}, {})


def test_an_invalid_string_check_is_refused() -> None:
    assert "'eq', 'ne', 'like' or 'ilike'" in refusal(check(operation="contains"))
    assert "Extra inputs are not permitted" in refusal(check(operatoin="eq"))
    assert "every answer has an empty text in it" in refusal(check(operation="ilike", reference=""))
    assert check(operation="eq", reference="")
    assert "valid string" in refusal(check(input=3))
    assert "at least 1 character" in refusal(check(name=""))
    assert "'string_check', 'text_similarity', 'python', 'score_model', 'multi'" in refusal({"type": "label_model"})
