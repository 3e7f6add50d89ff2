"""Error bars for evaluations, after "Adding Error Bars to Evals" (Miller 2024, arXiv 2411.00640)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from trainer.frozen import Frozen

Z95 = 1.959963984540054
"""The normal distribution's 97.5% quantile."""

Better = Literal["lower", "higher"]


class Estimate(Frozen):
    """A mean with its 95% interval; `low` and `high` are None if fewer than two rows were scored."""

    value: float
    low: float | None
    high: float | None


class Measure(Frozen):
    """One quantity of one model, row by row: its value is Σ sums / Σ weights over the rows.

    A row is the cluster of what hangs together: the tokens of a conversation, the pairs of a ranking. `rate` says
    that each sum lies between 0 and its weight.
    """

    name: str
    label: str
    unit: str = ""
    better: Better | None = None
    kind: Literal["mean", "rate"] = "mean"
    lines: tuple[int, ...]
    sums: tuple[float, ...]
    weights: tuple[float, ...]

    @property
    def value(self) -> float:
        """The quantity over all rows. Raises ZeroDivisionError if nothing was scored."""
        return math.fsum(self.sums) / math.fsum(self.weights)


class MeasureComparison(Frozen):
    """Base against tuned model on the same rows; the difference is tuned minus base, paired by row.

    `weight` is what the mean is over: tokens, pairs or rows.
    """

    name: str
    label: str
    unit: str
    better: Better | None
    kind: Literal["mean", "rate"]
    rows: int
    weight: float
    base: Estimate
    tuned: Estimate
    difference: Estimate


def ratio_estimate(sums: Sequence[float], weights: Sequence[float]) -> Estimate:
    """Estimate Σ sums / Σ weights, with an interval clustered by row.

    What belongs to a row hangs together, so the row is the cluster: the ratio estimator's variance
    n / (n - 1) · Σ (s_i - r · w_i)² / (Σ w_i)², and a normal interval. Raises ValueError if all weights are 0.
    """
    total = math.fsum(weights)
    if not total:
        raise ValueError("an estimate needs at least one token, pair or row")
    ratio = math.fsum(sums) / total
    count = len(sums)
    if count < 2:
        return Estimate(value=ratio, low=None, high=None)
    squares = math.fsum((value - ratio * size) ** 2 for value, size in zip(sums, weights, strict=True))
    error = math.sqrt(count / (count - 1) * squares) / total
    return Estimate(value=ratio, low=ratio - Z95 * error, high=ratio + Z95 * error)


def wilson_estimate(hits: float, count: int) -> Estimate:
    """Estimate a rate of independent trials with Wilson's score interval (Wilson 1927). Raises ValueError for none."""
    if not count:
        raise ValueError("a rate needs at least one trial")
    rate = hits / count
    centre = (rate + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
    half = Z95 / (1 + Z95**2 / count) * math.sqrt(rate * (1 - rate) / count + Z95**2 / (4 * count**2))
    return Estimate(value=rate, low=max(0.0, centre - half), high=min(1.0, centre + half))


def estimate_measure(measure: Measure) -> Estimate:
    """Return a measure's value and interval: Wilson's for a rate of one trial a row, else clustered by row."""
    if measure.kind == "rate" and all(weight == 1 for weight in measure.weights):
        return wilson_estimate(math.fsum(measure.sums), len(measure.sums))
    estimate = ratio_estimate(measure.sums, measure.weights)
    return _within_unit(estimate) if measure.kind == "rate" else estimate


def compare_measures(base: Sequence[Measure], tuned: Sequence[Measure]) -> tuple[MeasureComparison, ...]:
    """Compare two models measure by measure. Raises ValueError if measures, rows or weights are not the same."""
    if [_measure_identity(measure) for measure in base] != [_measure_identity(measure) for measure in tuned]:
        raise ValueError("base and tuned measures are not about the same rows")
    return tuple(
        MeasureComparison(
            name=before.name,
            label=before.label,
            unit=before.unit,
            better=before.better,
            kind=before.kind,
            rows=len(before.lines),
            weight=math.fsum(before.weights),
            base=estimate_measure(before),
            tuned=estimate_measure(after),
            difference=ratio_estimate([a - b for b, a in zip(before.sums, after.sums, strict=True)], before.weights),
        )
        for before, after in zip(base, tuned, strict=True)
    )


def token_measures(
    lines: Sequence[int], nll: Sequence[float], correct: Sequence[float], tokens: Sequence[int]
) -> tuple[Measure, Measure]:
    """Return loss and token accuracy from each row's summed negative log-likelihood in nats and greedy hits."""
    where, weights = tuple(lines), tuple(map(float, tokens))
    loss = Measure(
        name="loss", label="loss", unit="nats a token", better="lower", lines=where, sums=tuple(nll), weights=weights
    )
    accuracy = Measure(
        name="token_accuracy",
        label="token accuracy",
        better="higher",
        kind="rate",
        lines=where,
        sums=tuple(map(float, correct)),
        weights=weights,
    )
    return loss, accuracy


def _measure_identity(measure: Measure) -> tuple[str, tuple[int, ...], tuple[float, ...]]:
    return measure.name, measure.lines, measure.weights


def _within_unit(estimate: Estimate) -> Estimate:
    low = None if estimate.low is None else max(0.0, estimate.low)
    high = None if estimate.high is None else min(1.0, estimate.high)
    return Estimate(value=estimate.value, low=low, high=high)
