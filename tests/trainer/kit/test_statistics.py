from __future__ import annotations

import math
import random

import pytest

from trainer.kit.statistics import (
    Measure,
    compare_measures,
    estimate_measure,
    ratio_estimate,
    token_measures,
    wilson_estimate,
)
from trainer.report.model import perplexity_of_loss, verdict_of


def scores(nlls: list[float], tokens: int = 10) -> tuple[Measure, Measure]:
    count = len(nlls)
    return token_measures(list(range(1, count + 1)), nlls, [5] * count, [tokens] * count)


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
    comparison, _ = compare_measures(scores(base), scores(tuned))
    assert comparison.tuned.high is not None
    assert comparison.base.low is not None
    assert comparison.tuned.high > comparison.base.low
    assert comparison.difference.high is not None
    assert comparison.difference.high < 0
    assert verdict_of(comparison, held_out=True).outcome == "better"
    assert verdict_of(compare_measures(scores(tuned), scores(base))[0], held_out=True).outcome == "worse"
    assert verdict_of(comparison, held_out=False).outcome == "not_held_out"


def test_noise_is_not_a_difference() -> None:
    draw = random.Random(5)
    base = [10 + draw.gauss(0, 1) for _ in range(30)]
    comparison, _ = compare_measures(scores(base), scores([nll + draw.gauss(0, 1) for nll in base]))
    verdict = verdict_of(comparison, held_out=True)
    assert verdict.outcome == "no_difference_shown"
    assert "95% interval" in verdict.sentence


def test_one_row_has_no_interval() -> None:
    comparison, _ = compare_measures(scores([10.0]), scores([1.0]))
    assert comparison.difference.low is None
    assert verdict_of(comparison, held_out=True).outcome == "no_difference_shown"


def test_other_rows_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same rows"):
        compare_measures(scores([1.0, 2.0]), scores([1.0]))


def test_perplexity_is_never_infinite() -> None:
    assert perplexity_of_loss(0.0) == 1
    assert perplexity_of_loss(1e6) is None


def test_wilson_s_interval_is_the_textbook_s() -> None:
    # Newcombe 1998, table I: 81 of 263.
    rate = wilson_estimate(81, 263)
    assert (rate.low, rate.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert wilson_estimate(0, 5).low == 0


def test_a_rate_of_one_trial_a_row_has_wilson_s_interval_and_clusters_have_not() -> None:
    hits = (1.0, 0.0, 1.0, 1.0)
    single = Measure(name="a", label="a", kind="rate", lines=(1, 2, 3, 4), sums=hits, weights=(1.0,) * 4)
    assert estimate_measure(single) == wilson_estimate(3, 4)
    pairs = single.model_copy(update={"weights": (3.0, 1.0, 1.0, 1.0)})
    assert estimate_measure(pairs).value == 0.5
    assert estimate_measure(pairs) != wilson_estimate(3, 6)


def test_where_higher_is_better_a_rise_is_better() -> None:
    def rate(hits: int) -> Measure:
        sums = (1.0,) * hits + (0.0,) * (40 - hits)
        return Measure(
            name="pair_accuracy",
            label="pair accuracy",
            better="higher",
            kind="rate",
            lines=tuple(range(40)),
            sums=sums,
            weights=(1.0,) * 40,
        )

    (comparison,) = compare_measures([rate(10)], [rate(30)])
    verdict = verdict_of(comparison, held_out=True)
    assert verdict.outcome == "better"
    assert "pair accuracy rose" in verdict.sentence
