"""The arithmetic of GRPO as pure functions.

Sources: GRPO (Shao et al. 2024, arXiv 2402.03300), Dr. GRPO (Liu et al. 2025, arXiv 2503.20783), DAPO (Yu et al. 2025,
arXiv 2503.14476).
"""

from __future__ import annotations

from typing import Literal

import torch

from trainer.engine.onpolicy.policy_loss import PolicyLoss, policy_loss

STD_EPSILON = 1e-4

Kind = Literal["grpo", "dapo", "dr_grpo"]


def group_advantages(rewards: torch.Tensor, *, scale: bool) -> torch.Tensor:
    """Return each answer's reward above its group's mean [groups, answers].

    With `scale` it is divided by the group's standard deviation (the unbiased one) + 1e-4, as in the paper; Dr. GRPO
    leaves that out, because it gives questions weight that are nearly always answered right or wrong.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + STD_EPSILON) if scale else centred


def token_weights(mask: torch.Tensor, kind: Kind, longest: int) -> torch.Tensor:
    """Return each token's weight in the sum of an update's loss, [rows, tokens] like `mask`.

    `grpo`: 1 over its answer's tokens; `dr_grpo`: 1 over the `longest` answer that may be drawn; `dapo`: 1.
    """
    match kind:
        case "grpo":
            each = 1 / mask.sum(1, keepdim=True)
        case "dr_grpo":
            each = torch.full_like(mask[:, :1], 1 / longest, dtype=torch.float32)
        case "dapo":
            each = torch.ones_like(mask[:, :1], dtype=torch.float32)
    return each * mask


def kl_penalty(new: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return the k3 estimate of KL(π ‖ π_ref) at each token [n]: r - 1 - log r with r = π_ref / π, never negative.

    Its mean over tokens drawn from π is the KL.
    """
    log_ratio = reference - new
    return log_ratio.exp() - 1 - log_ratio


def grpo_loss(
    new: torch.Tensor,
    old: torch.Tensor,
    reference: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    clip_range: float,
    kl_coef: float,
    kl_correction: bool,
) -> PolicyLoss:
    """Return the weighted sum over flat tokens [n] of the clipped surrogate and β times the KL to the reference.

    The tokens were drawn from the old policy. With `kl_correction` each KL has the ratio of new to old probability as
    a factor, gradient and all, and its gradient is that of KL(π ‖ π_ref); without, it is that of KL(π_ref ‖ π).
    Either way a token pays for its own KL and not for the KL of what it leads to, so that GRPO's optimum is near, but
    not, PPO's π* ∝ π_ref · exp(reward / β).
    """
    surrogate = policy_loss(new, old, advantages, clip_range, weights)
    if not kl_coef:
        return surrogate
    drawn_anew = weights * (new - old).exp() if kl_correction else weights
    penalty = kl_coef * (drawn_anew * kl_penalty(new, reference)).sum()
    return surrogate._replace(loss=surrogate.loss + penalty, penalty=float(penalty.detach()))
