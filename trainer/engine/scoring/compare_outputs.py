"""Comparing a reloaded model with the one in memory: an export counts only if it gives the same outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trainer.contract.result import ExitCode
from trainer.engine.scoring.evaluate import evaluation_mode
from trainer.kit.errors import TrainerError

# The reload computes the same operations on the same numbers; the room is for kernels that sum in another order.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.125}


def compute_logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return a batch's logits in float32, without dropout, a graph or a cache."""
    with evaluation_mode(model):
        return model(**batch, use_cache=False).logits.float()


def require_close(
    what: str, outputs: str, expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], tolerance: float
) -> float:
    """Return the largest difference between tensors of the same shapes, one of each for a row or a batch.

    Raises TrainerError (`export_mismatch`) if it is more than `tolerance`, or not a number; `what` was exported, and
    its `outputs` are compared.
    """
    # torch's maximum of a NaN is NaN; Python's `max` drops one that does not come first.
    difference = float(torch.stack([(a - b).abs().max() for a, b in zip(expected, found, strict=True)]).max())
    if not difference <= tolerance:
        raise export_mismatch(what, outputs, f"they differ by {difference:.3g}, where {tolerance:.3g} is allowed")
    return difference


def export_mismatch(what: str, outputs: str, reason: str) -> TrainerError:
    """Return the error that says how a reloaded export differs from the model that was trained."""
    return TrainerError(
        "export_mismatch",
        f"The exported {what} does not give the trained model's {outputs}: {reason}.",
        exit_code=ExitCode.FAULT,
    )
