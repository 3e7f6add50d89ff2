"""The measures against sacreBLEU 2.6.0, NLTK 3.10.4 (METEOR's stage of equal tokens) and rouge-score 0.1.2.

The numbers below are theirs, computed over the same tokens.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.trainer.graders.scenes import check, graded, refusal
from trainer.graders.similarity import MOST_CHARACTERS, MOST_TOKENS, split_tokens

METRICS = ("bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l", "fuzzy_match")
CAT = "The cat sat on the mat.", "The cat is on the mat."
WEATHER = "今天北京的天气很好\uff0c适合出门散步。", "今天北京天气不错\uff0c很适合出去散步\uff01"
MIXED = "我们用 Burnish v2 训练模型", "我们在 Burnish 上训练 3 个模型"
CASES: list[tuple[tuple[str, str], list[float]]] = [
    (CAT, [0.488923, 0.590909, 0.84127, 0.833333, 0.6, 0.25, 0.0, 0.0, 0.833333, 0.933333]),
    (WEATHER, [0.262932, 0.387097, 0.727115, 0.8, 0.5, 0.230769, 0.083333, 0.0, 0.8, 0.705882]),
    (MIXED, [0.137444, 0.263158, 0.58768, 0.7, 0.333333, 0.0, 0.0, 0.0, 0.7, 0.75]),
    (
        ("the the the the", "the cat sat on the mat"),
        [0.115216, 0.111111, 0.172414, 0.4, 0.0, 0.0, 0.0, 0.0, 0.4, 0.594595],
    ),
    (
        ("a b c d e f g", "g f e d c b a"),
        [0.106822, 0.318182, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.142857, 0.538462],
    ),
    (("short", "a much longer reference text is here"), [0.0] * 9 + [0.195122]),
    (("a b", "a b"), [1.0, 1.0, 0.9375, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]),
    (("Straße café", "straße cafe\u0301"), [1.0, 1.0, 0.9375, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.782609]),
    (("", "something"), [0.0] * 10),
    (("something", ""), [0.0] * 10),
    (("。", "\uff0c"), [0.0] * 10),
]


def similar(metric: str, text: str, reference: str) -> Any:
    grader = check(type="text_similarity", evaluation_metric=metric)
    del grader["operation"]
    return graded(grader, text, {"answer": reference})


@pytest.mark.parametrize(("texts", "expected"), CASES)
def test_each_measure_is_that_of_the_reference_libraries(texts: tuple[str, str], expected: list[float]) -> None:
    found = [similar(metric, *texts) for metric in METRICS]
    assert [grade.reward for grade in found] == pytest.approx(expected, abs=1e-6)
    assert not any(grade.failed for grade in found)


def test_two_empty_texts() -> None:
    assert similar("fuzzy_match", "", "").reward == 1.0
    assert similar("bleu", "", "").reward == 0.0


def test_tokens_are_words_or_chinese_characters() -> None:
    assert split_tokens("Burnish 训练 GPT-2\uff0c好\uff01", signs=True) == [
        "burnish",
        "训",
        "练",
        "gpt",
        "-",
        "2",
        "\uff0c",
        "好",
        "\uff01",
    ]
    assert split_tokens("Burnish 训练 GPT-2\uff0c好\uff01", signs=False) == ["burnish", "训", "练", "gpt", "2", "好"]
    assert split_tokens("ひらカタ漢々", signs=False) == list("ひらカタ漢々")
    assert split_tokens("한국어 문장", signs=False) == ["한국어", "문장"]


@pytest.mark.parametrize("metric", METRICS)
def test_a_text_that_is_too_long_is_reported_and_not_compared(metric: str) -> None:
    result = similar(metric, "字" * (MOST_CHARACTERS + 1), "字")
    assert (result.reward, result.errors.truncated_observation_error) == (0.0, True)
    within = similar(metric, "字 " * (MOST_TOKENS + 1), "字")
    assert within.failed == (metric != "fuzzy_match")


@pytest.mark.parametrize("metric", ["bleu", "gleu", "meteor", "rouge_5", "rouge_l", "fuzzy_match"])
def test_the_longest_texts_are_compared(metric: str) -> None:
    assert similar(metric, "字" * MOST_TOKENS, "字字" * (MOST_TOKENS // 2)).reward > 0.99


def test_cosine_is_refused_with_what_to_do() -> None:
    grader = check(type="text_similarity", evaluation_metric="cosine")
    del grader["operation"]
    assert "no model that makes them: use fuzzy_match" in refusal(grader)
