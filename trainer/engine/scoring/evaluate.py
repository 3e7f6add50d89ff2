"""Evaluation by token over the corpus: each row's negative log-likelihood and greedy hits, kept for error bars."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from trainer.engine.data.batches import batches_within, collate_rows
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.scoring.head import trained_scores
from trainer.kit.errors import TrainerError
from trainer.kit.statistics import Measure, token_measures

SUBSET_TOKENS = 2048


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off for a while; the model's mode comes back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def score_rows(model: Any, rows: Sequence[TokenizedRow], pad_id: int) -> tuple[Measure, Measure]:
    """Return loss and token accuracy of the model as it is, row by row in the order given. Losses are in nats.

    Raises TrainerError (`loss_not_finite`) if a score is not a finite number.
    """
    scores: dict[int, tuple[float, int]] = {}
    with evaluation_mode(model):
        for numbers in batches_within([len(row.input_ids) for row in rows], model.device.type):
            batch = [rows[number] for number in numbers]
            scores.update(zip(numbers, _score_batch(model, batch, pad_id), strict=True))
    return token_measures(
        [row.line for row in rows],
        [scores[number][0] for number in range(len(rows))],
        [scores[number][1] for number in range(len(rows))],
        [row.trained_tokens for row in rows],
    )


def _score_batch(model: Any, rows: Sequence[TokenizedRow], pad_id: int) -> list[tuple[float, int]]:
    batch = {name: values.to(model.device) for name, values in collate_rows(rows, pad_id).items()}
    log_probs, hits = trained_scores(model, batch, compact=model.device.type == "cpu")
    sizes = [row.trained_tokens for row in rows]
    scores: list[tuple[float, int]] = []
    for row, probs, right in zip(rows, log_probs.split(sizes), hits.split(sizes), strict=True):
        # In double: the intervals are about differences that a long sum in float32 would lose.
        nll = -float(probs.double().sum())
        if not math.isfinite(nll):
            raise TrainerError("loss_not_finite", f"The evaluation loss of line {row.line} is not a finite number.")
        scores.append((nll, int(right.sum())))
    return scores
