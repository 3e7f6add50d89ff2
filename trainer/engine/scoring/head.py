"""Scoring the trained tokens. Only their positions go through the LM head, which is a model's largest matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from trainer.engine.data.tokens import IGNORED


@contextmanager
def limit_head_input(model: nn.Module, choose: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Let the LM head see only what `choose` takes from the hidden states [rows, tokens, width]."""

    def only_chosen(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (choose(args[0]), *args[1:])

    # A hook on the head, and not a head of our own, keeps each family's scaling and soft-capping of the logits.
    hook = cast(Any, model).get_output_embeddings().register_forward_pre_hook(only_chosen)
    try:
        yield
    finally:
        hook.remove()


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

    # The last place predicts what is not in the row.
    with limit_head_input(model, lambda hidden: hidden[:, :-1][mask]):
        logits = model(**inputs).logits.float()
    targets = labels[:, 1:][mask]
    return -nn.functional.cross_entropy(logits, targets, reduction="none"), logits.detach().argmax(-1) == targets
