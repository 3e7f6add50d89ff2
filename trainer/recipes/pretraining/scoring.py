"""Losses of windows: every token is a target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from trainer.engine.data.tokens import IGNORED
from trainer.engine.scoring.evaluate import evaluation_mode
from trainer.kit.auto import rows_a_pass
from trainer.kit.errors import TrainerError
from trainer.kit.statistics import Measure, token_measures
from trainer.recipes.pretraining.packing import Window, collate_windows


def token_scores(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return negative log-likelihoods and greedy hits, both [windows, tokens], zero behind a window's end.

    There is no attention mask: the position ids alone say where documents begin.
    """
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits.float()
    labels = batch["labels"]
    nll = nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return nll, (logits.detach().argmax(-1) == labels) & (labels != IGNORED)


def score_windows(model: Any, windows: Sequence[Window], pad_id: int) -> tuple[Measure, Measure]:
    """Return loss and token accuracy of the windows. Raises TrainerError (`loss_not_finite`)."""
    losses: list[float] = []
    hits: list[float] = []
    with evaluation_mode(model):
        for batch in _window_batches(windows, pad_id, model.device):
            nll, right = token_scores(model, batch)
            losses += nll.double().sum(1).tolist()
            hits += right.sum(1).tolist()
    if not all(map(torch.isfinite, torch.tensor(losses))):
        raise TrainerError("loss_not_finite", "The evaluation loss of a window is not a finite number.")
    return token_measures([window.line for window in windows], losses, hits, [len(window) for window in windows])


def keeps_documents_apart(model: Any) -> bool:
    """Return whether a document's logits are the same behind another document as alone."""
    size = 6
    ids = torch.arange(2 * size, device=model.device).view(2, size) % model.config.get_text_config().vocab_size
    place = torch.arange(size, device=model.device)
    with evaluation_mode(model):
        alone = model(input_ids=ids[1:], position_ids=place[None], use_cache=False).logits.float()
        packed = model(input_ids=ids.view(1, -1), position_ids=place.repeat(2)[None], use_cache=False).logits.float()
    scale = float(alone.abs().max())
    # `alone` is float32: the wider bound is for models in bfloat16.
    return bool((packed[:, size:] - alone).abs().max() <= (1e-4 if alone.dtype == model.dtype else 0.05) * scale)


def _window_batches(windows: Sequence[Window], pad_id: int, device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
    # All windows but a file's last are of one length, so their order is kept.
    size = rows_a_pass(device.type, max(len(window) for window in windows))
    for start in range(0, len(windows), size):
        batch = collate_windows(windows[start : start + size], pad_id)
        yield {name: values.to(device) for name, values in batch.items()}
