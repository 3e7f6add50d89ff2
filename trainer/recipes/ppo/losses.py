"""The arithmetic of PPO as pure functions. All tensors are [responses, tokens] with a mask of the real tokens.

Sources: PPO (Schulman et al. 2017, arXiv 1707.06347), GAE (Schulman et al. 2015, arXiv 1506.02438), RLHF (Ziegler et
al. 2019, arXiv 1909.08593) and "The N+ Implementation Details of RLHF with PPO" (Huang et al. 2024, arXiv 2403.17031).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

KL_GAIN = 0.1
KL_ERROR_LIMIT = 0.2
WHITEN_EPSILON = 1e-8


class ValueLoss(NamedTuple):
    """Sums over the tokens: the loss (with its graph) and the clipped tokens."""

    loss: torch.Tensor
    clipped: torch.Tensor


def token_rewards(
    scores: torch.Tensor, log_probs: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, kl_coef: float
) -> torch.Tensor:
    """Return -kl_coef · (log π - log π_ref) at each token, and the response's score [responses] on its last token.

    The log-ratio is the k1 estimate of the KL term; summed over a response sampled from π, its mean is
    KL(π ‖ π_ref) exactly, so that without discount the return's mean is E[score] - kl_coef · KL.
    """
    rewards = (-kl_coef * (log_probs - reference)).masked_fill(~mask, 0.0)
    last = mask.sum(1) - 1
    rewards[torch.arange(len(scores), device=scores.device), last] += scores
    return rewards


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return generalised advantages and the returns that the value function is to learn (advantage + value).

    delta_t = r_t + gamma·V_{t+1} - V_t and A_t = delta_t + gamma·lam·A_{t+1}; the value behind the last token is
    zero.
    """
    values = values.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    for step in range(rewards.shape[1] - 1, -1, -1):
        next_value = values[:, step + 1] if step + 1 < rewards.shape[1] else torch.zeros_like(following)
        delta = rewards[:, step] + gamma * next_value - values[:, step]
        # Back to zero behind an answer's end, so that a short row starts as a long one does.
        following = torch.where(mask[:, step], delta + gamma * lam * following, torch.zeros_like(following))
        advantages[:, step] = following
    return advantages, advantages + values


def whiten(values: torch.Tensor, mask: torch.Tensor, *, shift_mean: bool = True) -> torch.Tensor:
    """Scale the masked values to unit variance (the biased one), and to mean zero unless `shift_mean` is False.

    Rewards keep their mean: shifting it would change whether an end is worth reaching. Masked-out places become zero.
    """
    chosen = values[mask]
    mean = chosen.mean()
    whitened = (values - mean) * torch.rsqrt(chosen.var(unbiased=False) + WHITEN_EPSILON)
    return (whitened if shift_mean else whitened + mean).masked_fill(~mask, 0.0)


def value_loss(new: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip_range: float | None) -> ValueLoss:
    """Return ½·max((V - R)², (V_old + clip(V - V_old, ±ε) - R)²) over flat tokens [n]; plain ½(V - R)² without ε."""
    plain = (new - returns).square()
    if clip_range is None:
        return ValueLoss(0.5 * plain.sum(), torch.zeros((), device=new.device))
    limited = (old + (new - old).clamp(-clip_range, clip_range) - returns).square()
    return ValueLoss(0.5 * torch.maximum(plain, limited).sum(), (limited > plain).sum())


@dataclass
class KlController:
    """The weight of the KL term, fixed, or drawn to `target` nats a response (Ziegler et al. 2019, section 2.2).

    e = clip((KL - target) / target, ±0.2) and β ← β·(1 + 0.1·e) after each iteration.
    """

    coefficient: float
    target: float | None = None

    def update_coefficient(self, kl: float) -> None:
        """Adapt to an iteration's mean KL a response, in nats."""
        if self.target is not None:
            error = max(-KL_ERROR_LIMIT, min(KL_ERROR_LIMIT, (kl - self.target) / self.target))
            self.coefficient *= 1 + KL_GAIN * error
