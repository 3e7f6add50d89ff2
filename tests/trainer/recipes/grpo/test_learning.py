"""In a world of 40 answers: GRPO without a KL term finds the best one, with it the point where its gradient vanishes.

That point is not PPO's π* ∝ π_ref · exp(r / β): GRPO charges a token for its own KL, not for that of what it leads to.
So π(a|s) ∝ π_ref(a|s) · exp(Q(s, a) / β) with Q the mean reward alone, which a recursion from the answers' ends gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
import torch

from tests.fixtures.scale import sampled
from tests.trainer.recipes.ppo.worlds import PROMPT, VOCABULARY, completions, log_probabilities, sampling, tiny_policy
from trainer.contract.methods.grpo import GrpoHyperparameters
from trainer.engine.onpolicy.roles import Roles
from trainer.engine.onpolicy.updates import UpdateSettings
from trainer.engine.scoring.generation import SampledResponse
from trainer.recipes.grpo.iteration import Grpo

Answer = tuple[int, ...]
ANSWERS, ITERATIONS, RATE = 512, 60, 2e-3


def fixed_point(
    reference: Mapping[Answer, float], rewards: Mapping[Answer, float], beta: float, start: Answer = ()
) -> tuple[dict[Answer, float], float]:
    """Return the fixed point's probabilities of the answers that begin with `start`, and their mean reward."""
    if start in rewards:
        return {start: 1.0}, rewards[start]
    parts: list[tuple[dict[Answer, float], float, float]] = []
    for token in range(VOCABULARY):
        below, value = fixed_point(reference, rewards, beta, (*start, token))
        mass = sum(reference[answer] for answer in below)
        parts.append((below, value, mass * math.exp(value / beta)))
    total = sum(weight for _, _, weight in parts)
    found = {answer: p * weight / total for below, _, weight in parts for answer, p in below.items()}
    return found, sum(value * weight / total for _, value, weight in parts)


@pytest.mark.slow
@pytest.mark.parametrize("beta", sampled([0.5, 0.0]))
def test_it_comes_to_where_it_should(beta: float) -> None:
    answers = completions()
    rewards = torch.randn(len(answers), generator=torch.Generator().manual_seed(4)).double()
    table = dict(zip(answers, rewards.tolist(), strict=True))

    def score(_prompts: object, drawn: Sequence[SampledResponse]) -> list[float]:
        return [table[response.ids] for response in drawn]

    given = GrpoHyperparameters.model_validate(
        {
            "reward": {"function": "length", "parameters": {"target": 1}},
            "group_size": ANSWERS,
            "rollout_prompts": 1,
            "minibatches": 4,
            "grpo_epochs": 2,
            "max_new_tokens": 3,
            "loss": "dr_grpo",
            "scale_rewards": "none",
            "kl_coef": beta,
        }
    )
    roles = Roles(tiny_policy(4, rank=16), reward=None, continued=False, seed=4, critic=False)
    grpo = Grpo(roles, sampling(), score, given, UpdateSettings(ANSWERS // 4, RATE, 0.0, 1.0, 4))
    for iteration in range(ITERATIONS):
        for group in grpo.optimizer.param_groups:
            group["lr"] = RATE * (1 - iteration / ITERATIONS)
        collected = grpo.collect_answers([PROMPT] * ANSWERS, iteration)
        assert collected is not None
        grpo.improve_policy(collected, iteration)
    reference, policy = (log_probabilities(grpo, role, answers).exp() for role in ("reference", "policy"))
    if beta:
        there, _ = fixed_point(dict(zip(answers, reference.tolist(), strict=True)), table, beta)
        target = torch.tensor([there[answer] for answer in answers]).double()
        assert float(target.sum()) == pytest.approx(1)
    else:
        target = (rewards == rewards.max()).double()
    before, after = ((policy_ - target).abs().sum() / 2 for policy_ in (reference, policy))
    assert before > 0.3
    assert after < 0.2 * before
