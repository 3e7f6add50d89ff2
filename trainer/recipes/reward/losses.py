"""The loss of a ranking (Ouyang et al. 2022, arXiv 2203.02155), with a margin and centring by choice."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid


def pair_losses(
    scores: torch.Tensor, pairs: torch.Tensor, *, margins: torch.Tensor | None = None, centering: float = 0.0
) -> torch.Tensor:
    """Return -log σ(r_better - r_worse - margin) + centering · (r_better + r_worse)² of each pair [p].

    The margin is Llama 2's (arXiv 2307.09288); the centring is Eisenstein et al.'s (arXiv 2312.09244).
    """
    better, worse = scores[pairs[:, 0]], scores[pairs[:, 1]]
    difference = better - worse
    losses = -logsigmoid(difference if margins is None else difference - margins)
    return losses + centering * (better + worse) ** 2 if centering else losses
