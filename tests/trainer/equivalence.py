"""Comparing a loss with a reference's on the same batch; the numbers are kept for the tables of `make proof`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

Record = Callable[[str, object], None]
"""pytest's `record_property`."""


def assert_same(
    record: Record, loss: torch.Tensor, reference: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor
) -> None:
    """Assert that losses agree within 1e-5 relative and gradients have a cosine above 0.99999."""
    mine, other = float(loss.detach()), float(reference.detach())
    cosine = float(torch.cosine_similarity(ours.double(), theirs.double(), dim=0))
    record("loss", f"{mine:.6f}")
    record("relative difference", f"{abs(mine - other) / abs(other):.1e}")
    record("1 - cosine of the gradients", f"{max(0.0, 1 - cosine):.1e}")
    assert mine == pytest.approx(other, rel=1e-5)
    assert cosine > 0.99999
