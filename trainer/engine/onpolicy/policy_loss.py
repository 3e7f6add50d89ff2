"""The clipped surrogate of PPO (Schulman et al. 2017, arXiv 1707.06347), which GRPO has too."""

from __future__ import annotations

from typing import NamedTuple

import torch


class PolicyLoss(NamedTuple):
    """Sums over the tokens: the loss (with its graph), clipped tokens, and the k3 estimate of KL(old ‖ new).

    `penalty` is the part of the loss, if any, that is paid for the KL to the reference.
    """

    loss: torch.Tensor
    clipped: torch.Tensor
    kl: torch.Tensor
    penalty: float = 0.0


def policy_loss(
    new: torch.Tensor,
    old: torch.Tensor,
    advantages: torch.Tensor,
    clip_range: float,
    weights: torch.Tensor | None = None,
) -> PolicyLoss:
    """Return the clipped surrogate -min(r·A, clip(r, 1 - ε, 1 + ε)·A), r = exp(new - old), over flat tokens [n].

    The loss's sum has `weights` [n], each 1 without. k3 is Schulman's unbiased, never negative estimate
    r - 1 - log r ("Approximating KL Divergence", 2020).
    """
    log_ratio = new - old
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    limited = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    with torch.no_grad():
        clipped = (limited > plain).sum()
        kl = (ratio - 1 - log_ratio).sum()
    losses = torch.maximum(plain, limited)
    return PolicyLoss((losses if weights is None else weights * losses).sum(), clipped, kl)
