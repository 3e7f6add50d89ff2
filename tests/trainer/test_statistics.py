from __future__ import annotations

import math
import random

import pytest

from trainer.report.model import perplexity, verdict_of
from trainer.statistics import RowScore, compare, ratio_estimate


def scores(nlls: list[float], tokens: int = 10) -> list[RowScore]:
    return [RowScore(line=line, nll=nll, correct=5, tokens=tokens) for line, nll in enumerate(nlls, start=1)]


def test_equal_rows_give_the_textbook_interval() -> None:
    estimate = ratio_estimate([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1])
    error = 1.959963984540054 * math.sqrt(5 / 3 / 4)  # sample variance 5/3
    assert estimate.value == 2.5
    assert (estimate.low, estimate.high) == (pytest.approx(2.5 - error), pytest.approx(2.5 + error))


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    draw = random.Random(3)
    hits = 0
    for _ in range(400):
        tokens = [draw.randint(5, 30) for _ in range(60)]
        sums = [size * draw.gauss(2.0, 0.5) for size in tokens]
        estimate = ratio_estimate(sums, tokens)
        assert estimate.low is not None
        assert estimate.high is not None
        hits += estimate.low <= 2.0 <= estimate.high
    assert 0.90 <= hits / 400 <= 0.98


def test_pairing_finds_what_single_intervals_hide() -> None:
    base = [10.0 + 3 * (line % 7) for line in range(40)]
    tuned = [nll - 0.5 - 0.1 * (line % 3) for line, nll in enumerate(base)]
    comparison = compare(scores(base), scores(tuned))
    assert comparison.tuned_loss.high is not None
    assert comparison.base_loss.low is not None
    assert comparison.tuned_loss.high > comparison.base_loss.low
    assert comparison.loss_difference.high is not None
    assert comparison.loss_difference.high < 0
    assert verdict_of(comparison, held_out=True).outcome == "better"
    assert verdict_of(compare(scores(tuned), scores(base)), held_out=True).outcome == "worse"
    assert verdict_of(comparison, held_out=False).outcome == "not_held_out"


def test_noise_is_no_difference() -> None:
    draw = random.Random(5)
    base = [10 + draw.gauss(0, 1) for _ in range(30)]
    verdict = verdict_of(compare(scores(base), scores([nll + draw.gauss(0, 1) for nll in base])), held_out=True)
    assert verdict.outcome == "no_difference_shown"
    assert "95% interval" in verdict.sentence


def test_one_row_has_no_interval() -> None:
    comparison = compare(scores([10.0]), scores([1.0]))
    assert comparison.loss_difference.low is None
    assert verdict_of(comparison, held_out=True).outcome == "no_difference_shown"


def test_other_rows_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same rows"):
        compare(scores([1.0, 2.0]), scores([1.0]))


def test_perplexity_is_never_infinite() -> None:
    assert perplexity(0.0) == 1
    assert perplexity(1e6) is None
