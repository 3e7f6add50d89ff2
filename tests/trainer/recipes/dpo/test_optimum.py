"""The exact optimum: in a world that can be enumerated, DPO comes to π* ∝ π_ref · exp(r / β)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.fixtures.scale import sampled
from tests.trainer.equivalence import Record
from tests.trainer.recipes.ppo.worlds import END, PROMPT, completions, objective, optimum, rewards_of, tiny_policy
from trainer.engine.data.batches import collate_rows
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.preferences.pairs import sequence_log_probs
from trainer.recipes.dpo import dpo_loss

BETA = 0.5
PAIRS = 100_000
STEPS = 700


def batch_of_all() -> dict[str, Any]:
    start = PROMPT.input_ids
    return collate_rows(
        [
            TokenizedRow(line, (*start, *answer), (False,) * len(start) + (True,) * len(answer))
            for line, answer in enumerate(completions())
        ],
        END,
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", sampled([1, 2, 3]))
def test_dpo_on_bradley_terry_labels_reaches_the_optimal_objective(seed: int, record_property: Record) -> None:
    model, batch = tiny_policy(seed, rank=32), batch_of_all()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        reference = sequence_log_probs(model, batch)[0].double()
    assert float(reference.exp().sum()) == pytest.approx(1, abs=1e-4)
    rewards = rewards_of(seed)
    first, second = torch.multinomial(reference.exp(), 2 * PAIRS, replacement=True, generator=generator).view(2, -1)
    first_wins = torch.rand(PAIRS, generator=generator) < torch.sigmoid(rewards[first] - rewards[second])
    chosen, rejected = torch.where(first_wins, first, second), torch.where(first_wins, second, first)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=4e-3)
    # The rate falls to nothing: at a constant one, Adam's last steps may lie on a spike, by how a processor rounds.
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    for _ in range(STEPS):
        ratios = sequence_log_probs(model, batch)[0] - reference.float()
        # The Bradley-Terry model has reward differences on a scale of 1: β scales the implicit reward to it.
        loss = dpo_loss(ratios[chosen], ratios[rejected], beta=BETA).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        policy = sequence_log_probs(model, batch)[0].double()
    floor = objective(reference, reference, rewards, BETA)
    best = objective(optimum(reference, rewards, BETA), reference, rewards, BETA)
    share = (objective(policy, reference, rewards, BETA) - floor) / (best - floor)
    record_property("share of the optimum", f"{share:.4f}")
    assert 0.95 <= share <= 1
