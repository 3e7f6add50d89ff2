"""The arithmetic of PPO against loops and formulas written out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.engine.onpolicy.policy_loss import policy_loss
from trainer.recipes.ppo.losses import KlController, gae, token_rewards, value_loss, whiten

LENGTHS = (5, 1, 3)


def table(seed: int) -> torch.Tensor:
    return torch.randn(len(LENGTHS), max(LENGTHS), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MASK = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.99, 0.0)])
def test_gae_against_the_sum_of_its_definition(gamma: float, lam: float) -> None:
    rewards, values = table(1), table(2)
    advantages, returns = gae(rewards, values, MASK, gamma, lam)
    for row, length in enumerate(LENGTHS):
        delta = [
            float(rewards[row, t] + gamma * (values[row, t + 1] if t + 1 < length else 0.0) - values[row, t])
            for t in range(length)
        ]
        for t in range(length):
            expected = sum((gamma * lam) ** (later - t) * delta[later] for later in range(t, length))
            assert float(advantages[row, t]) == pytest.approx(expected, abs=1e-12)
            assert float(returns[row, t]) == pytest.approx(expected + float(values[row, t]), abs=1e-12)
        assert not advantages[row, length:].any()


def test_with_no_discount_the_return_is_the_sum_of_the_rewards_to_come() -> None:
    rewards = table(3)
    _, returns = gae(rewards, table(4), MASK, 1.0, 1.0)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            assert float(returns[row, t]) == pytest.approx(float(rewards[row, t:length].sum()))


def test_rewards_are_the_kl_term_and_the_score_on_the_last_token() -> None:
    own, reference, scores = table(5), table(6), torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    rewards = token_rewards(scores, own, reference, MASK, 0.3)
    for row, length in enumerate(LENGTHS):
        for t in range(max(LENGTHS)):
            expected = -0.3 * float(own[row, t] - reference[row, t]) if t < length else 0.0
            assert float(rewards[row, t]) == pytest.approx(expected + float(scores[row]) * (t == length - 1))


def test_whitening() -> None:
    values = table(7) * 5 + 3
    chosen = values[MASK]
    whitened = whiten(values, MASK)
    assert float(whitened[MASK].mean()) == pytest.approx(0, abs=1e-12)
    assert float(whitened[MASK].std(unbiased=False)) == pytest.approx(1, rel=1e-6)
    assert not whitened[~MASK].any()
    kept = whiten(values, MASK, shift_mean=False)
    assert float(kept[MASK].mean()) == pytest.approx(float(chosen.mean()))
    assert torch.isfinite(whiten(torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool))).all()


def test_policy_loss_and_its_gradient_against_a_loop() -> None:
    old, advantages = table(8).flatten(), table(9).flatten()
    new = (old + 0.3 * table(10).flatten()).requires_grad_()
    result = policy_loss(new, old, advantages, 0.2)
    total, clipped, kl = 0.0, 0, 0.0
    for n, o, a in zip(new.tolist(), old.tolist(), advantages.tolist(), strict=True):
        ratio = math.exp(n - o)
        limited = min(max(ratio, 0.8), 1.2)
        total -= min(ratio * a, limited * a)
        clipped += limited * a < ratio * a
        kl += ratio - 1 - (n - o)
    assert float(result.loss.detach()) == pytest.approx(total)
    assert 0 < int(result.clipped) == clipped < len(old)
    assert float(result.kl) == pytest.approx(kl)
    result.loss.backward()
    assert new.grad is not None
    ratio = (new - old).exp().detach()
    free = ~(((ratio > 1.2) & (advantages > 0)) | ((ratio < 0.8) & (advantages < 0)))
    assert torch.allclose(new.grad, torch.where(free, -advantages * ratio, 0.0))


def test_value_loss_against_a_loop() -> None:
    old, new, returns = table(11).flatten(), table(12).flatten(), table(13).flatten()
    expected = [
        0.5 * max((n - r) ** 2, (o + min(max(n - o, -0.5), 0.5) - r) ** 2)
        for n, o, r in zip(new.tolist(), old.tolist(), returns.tolist(), strict=True)
    ]
    assert float(value_loss(new, old, returns, 0.5).loss) == pytest.approx(sum(expected))
    assert int(value_loss(new, old, returns, 0.5).clipped) > 0
    assert float(value_loss(new, old, returns, None).loss) == pytest.approx(float(0.5 * ((new - returns) ** 2).sum()))


def test_the_kl_controller_rises_above_the_target_falls_below_and_rests_without_one() -> None:
    controller = KlController(0.1, target=4.0)
    controller.update_coefficient(4.4)
    assert controller.coefficient == pytest.approx(0.1 * 1.01)
    controller.update_coefficient(400.0)
    assert controller.coefficient == pytest.approx(0.1 * 1.01 * 1.02)
    controller.update_coefficient(0.0)
    assert controller.coefficient == pytest.approx(0.1 * 1.01 * 1.02 * 0.98)
    fixed = KlController(0.1)
    fixed.update_coefficient(400.0)
    assert fixed.coefficient == 0.1
