"""Error bars for evaluations, after "Adding Error Bars to Evals" (Miller 2024, arXiv 2411.00640)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.methods.base import Frozen

Z95 = 1.959963984540054
"""The normal distribution's 97.5% quantile."""


class RowScore(Frozen):
    """One row under one model: summed negative log-likelihood in nats, tokens guessed right, tokens trained on."""

    line: int
    nll: float
    correct: int
    tokens: int


class Estimate(Frozen):
    """A mean a token with its 95% interval; `low` and `high` are None where fewer than two rows were scored."""

    value: float
    low: float | None
    high: float | None


class Comparison(Frozen):
    """Base against tuned model on the same rows; differences are tuned minus base, paired by row."""

    rows: int
    tokens: int
    base_loss: Estimate
    tuned_loss: Estimate
    base_accuracy: Estimate
    tuned_accuracy: Estimate
    loss_difference: Estimate
    accuracy_difference: Estimate


def ratio_estimate(sums: Sequence[float], tokens: Sequence[int]) -> Estimate:
    """Estimate sum(sums) / sum(tokens), with an interval clustered by row.

    The tokens of a row hang together, so the row is the cluster: the ratio estimator's variance
    n / (n - 1) · Σ (s_i - r · t_i)² / (Σ t_i)², and a normal interval.
    """
    total = sum(tokens)
    if not total:
        raise ValueError("an estimate needs at least one token")
    ratio = sum(sums) / total
    count = len(sums)
    if count < 2:
        return Estimate(value=ratio, low=None, high=None)
    squares = math.fsum((value - ratio * size) ** 2 for value, size in zip(sums, tokens, strict=True))
    error = math.sqrt(count / (count - 1) * squares) / total
    return Estimate(value=ratio, low=ratio - Z95 * error, high=ratio + Z95 * error)


def compare(base: Sequence[RowScore], tuned: Sequence[RowScore]) -> Comparison:
    """Compare two models row by row. Raises ValueError where the rows are not the same."""
    if [(row.line, row.tokens) for row in base] != [(row.line, row.tokens) for row in tuned]:
        raise ValueError("base and tuned scores are not about the same rows")
    tokens = [row.tokens for row in base]
    return Comparison(
        rows=len(base),
        tokens=sum(tokens),
        base_loss=ratio_estimate([row.nll for row in base], tokens),
        tuned_loss=ratio_estimate([row.nll for row in tuned], tokens),
        base_accuracy=_within_unit(ratio_estimate([row.correct for row in base], tokens)),
        tuned_accuracy=_within_unit(ratio_estimate([row.correct for row in tuned], tokens)),
        loss_difference=ratio_estimate([t.nll - b.nll for b, t in zip(base, tuned, strict=True)], tokens),
        accuracy_difference=ratio_estimate([t.correct - b.correct for b, t in zip(base, tuned, strict=True)], tokens),
    )


def corpus_loss(scores: Sequence[RowScore]) -> float:
    """Return the negative log-likelihood a token over all rows, in nats."""
    return math.fsum(row.nll for row in scores) / sum(row.tokens for row in scores)


def corpus_accuracy(scores: Sequence[RowScore]) -> float:
    """Return the share of tokens whose most likely guess was right, over all rows."""
    return sum(row.correct for row in scores) / sum(row.tokens for row in scores)


def _within_unit(estimate: Estimate) -> Estimate:
    low = None if estimate.low is None else max(0.0, estimate.low)
    high = None if estimate.high is None else min(1.0, estimate.high)
    return Estimate(value=estimate.value, low=low, high=high)
