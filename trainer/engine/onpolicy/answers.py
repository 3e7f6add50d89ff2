"""Sampled answers with what policy, reference and reward say about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.engine.onpolicy.forward import Batch


@dataclass(frozen=True)
class Answers:
    """Answers under policy and reference, rows arranged by micro-batch: row r is the answer to prompt numbers[r].

    log_probs, reference and entropies are [rows, tokens] in nats with zeros outside `mask`; scores [rows] come from
    the reward, rewards [rows] are less the penalty for an answer without an end.
    """

    numbers: tuple[int, ...]
    batches: tuple[Batch, ...]
    ended: torch.Tensor
    mask: torch.Tensor
    log_probs: torch.Tensor
    reference: torch.Tensor
    entropies: torch.Tensor
    scores: torch.Tensor
    rewards: torch.Tensor

    @property
    def kl(self) -> torch.Tensor:
        """The k1 estimate of KL(policy ‖ reference) by answer [rows]."""
        return (self.log_probs - self.reference).sum(1)

    def split_by_batch(self, table: torch.Tensor) -> list[torch.Tensor]:
        """Return a table's [rows, tokens] values at real tokens, one flat tensor a micro-batch."""
        return list(table[self.mask].split([len(batch.targets) for batch in self.batches]))

    def mean_measures(self) -> dict[str, float]:
        """Return the means that an iteration reports: `reward`, `score`, `kl`, `entropy`, lengths and ends."""
        return {
            "reward": float(self.rewards.mean()),
            "score": float(self.scores.mean()),
            "kl": float(self.kl.mean()),
            "entropy": float(self.entropies.sum() / self.mask.sum()),
            "response_length": float(self.mask.sum(1).float().mean()),
            "eos_rate": float(self.ended.float().mean()),
        }


def fill_mask(flat: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """Lay flat tensors [n] out as [rows, tokens], zeros outside the mask."""
    table = torch.zeros(mask.shape, device=mask.device, dtype=flat[0].dtype)
    table[mask] = torch.cat(list(flat))
    return table
