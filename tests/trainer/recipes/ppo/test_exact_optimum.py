"""PPO comes near the optimum that can be computed: π* ∝ π_ref · exp(r / β), in a world of 40 answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from tests.fixtures.scale import FULL, sampled
from tests.trainer.equivalence import Record
from tests.trainer.recipes.ppo.worlds import (
    PROMPT,
    completions,
    log_probabilities,
    make_ppo,
    objective,
    optimum,
    rewards_of,
    tiny_policy,
)
from trainer.engine.scoring.generation import SampledResponse

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

BETA = 0.5
ANSWERS, ITERATIONS, RATE = (1024, 60, 1e-3) if FULL else (512, 40, 2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", sampled([1, 2, 3]))
def test_the_kl_regularised_objective_is_reached(seed: int, record_property: Record) -> None:
    answers = completions()
    rewards = rewards_of(seed)
    table = dict(zip(answers, rewards.tolist(), strict=True))

    def score(_prompts: object, drawn: Sequence[SampledResponse]) -> list[float]:
        return [table[response.ids] for response in drawn]

    ppo = make_ppo(
        tiny_policy(seed, rank=16),
        score,
        seed,
        batch_size=ANSWERS // 8,
        kl_coef=BETA,
        lam=1.0,
        value_clip_range=None,
        value_coef=1.0,
        ppo_epochs=2,
        minibatches=8,
        rollout_prompts=ANSWERS,
    )
    start = log_probabilities(ppo, "reference", answers)
    assert float(start.exp().sum()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(start, log_probabilities(ppo, "policy", answers))
    for iteration in range(ITERATIONS):
        for group in ppo.optimizer.param_groups:
            group["lr"] = RATE * (1 - iteration / ITERATIONS)
        collected = ppo.collect_answers([PROMPT] * ANSWERS, iteration)
        assert collected is not None
        ppo.improve_policy(collected, iteration)
    reference = log_probabilities(ppo, "reference", answers)
    assert torch.equal(start, reference)
    lowest = objective(reference, reference, rewards, BETA)
    highest = objective(optimum(reference, rewards, BETA), reference, rewards, BETA)
    reached = objective(log_probabilities(ppo, "policy", answers), reference, rewards, BETA)
    share = (reached - lowest) / (highest - lowest)
    record_property("share of the optimum", f"{share:.4f}")
    assert share >= 0.95
    assert reached <= highest
