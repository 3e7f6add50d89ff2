"""Scoring the trained tokens. Only their positions go through the LM head, which is a model's largest matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from trainer.engine.data import IGNORED, TokenizedRow


def collate(rows: Sequence[TokenizedRow], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad rows on the right to the longest: `input_ids`, `attention_mask`, `labels`, each [rows, tokens].

    The mask comes from lengths: a padding id that is also the end-of-turn token stays trained where it is real.
    """
    longest = max(len(row.input_ids) for row in rows)
    padding = [longest - len(row.input_ids) for row in rows]
    batch = {
        "input_ids": [[*row.input_ids, *[pad_id] * extra] for row, extra in zip(rows, padding, strict=True)],
        "attention_mask": [[1] * (longest - extra) + [0] * extra for extra in padding],
        "labels": [[*row.labels, *[IGNORED] * extra] for row, extra in zip(rows, padding, strict=True)],
    }
    return {name: torch.tensor(values) for name, values in batch.items()}


def trained_scores(model: nn.Module, batch: dict[str, Any], *, compact: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities [n] and greedy hits [n] of the batch's n trained tokens, row by row.

    `compact` gathers the trained positions in front of the LM head, on any device. Without it TRL's fused head is
    used, which gathers them by itself on a GPU and never holds the logits; elsewhere it computes every position.
    """
    labels: torch.Tensor = batch["labels"]
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
    mask = labels[:, 1:] != IGNORED
    if not compact:
        outputs = model(**inputs, labels=labels, fused_lm_head=True)
        return outputs.log_probs[mask], outputs.is_top1[mask].bool()

    def only_trained(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][:, :-1][mask], *args[1:])

    # A hook on the head, and not a head of our own, keeps each family's scaling and soft-capping of the logits.
    hook = model.get_output_embeddings().register_forward_pre_hook(only_trained)  # pyright: ignore[reportCallIssue]
    try:
        logits = model(**inputs).logits.float()
    finally:
        hook.remove()
    targets = labels[:, 1:][mask]
    return -nn.functional.cross_entropy(logits, targets, reduction="none"), logits.detach().argmax(-1) == targets
