"""GRPO's loss and gradients are TRL's on the same batch; its advantages and weights are what the papers say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from tests.trainer.equivalence import Record, assert_same
from tests.trainer.recipes.dpo.jobs import job, opened
from tests.trainer.recipes.dpo.test_losses import gradients, move_away
from tests.trainer.recipes.ppo.test_job import prompt
from trainer.engine.onpolicy.answers import Answers
from trainer.engine.onpolicy.forward import response_log_probs
from trainer.recipes.grpo.iteration import GroupExperience, Grpo
from trainer.recipes.grpo.losses import group_advantages, grpo_loss, kl_penalty, token_weights
from trainer.recipes.grpo.recipe import GrpoRecipe

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
GROUP, LONGEST = 4, 9
ROWS = [prompt("天气怎么样?"), prompt("Say 1!"), prompt("Go on with it.")]


def opened_grpo(workdir: Path, base: Path, **more: Any) -> GrpoRecipe:
    given = {
        "reward": {"function": "length", "parameters": {"target": 5}},
        "group_size": GROUP,
        "rollout_prompts": 3,
        "batch_size": 256,
        "max_new_tokens": LONGEST,
        "kl_coef": 0.3,
    }
    recipe = opened(job(workdir, base, "grpo", ROWS, hyperparameters={**given, **more}))
    assert isinstance(recipe, GrpoRecipe)
    return recipe


def drawn(recipe: GrpoRecipe) -> Answers:
    """Draw groups of answers, then move the policy away from both the reference and the sampling policy."""
    prompts = [row for row in recipe.data.training.rows for _ in range(GROUP)]
    answers = recipe.algorithm.collect_answers(prompts, 0)
    assert answers is not None
    noise = torch.randn(answers.mask.shape, generator=torch.Generator().manual_seed(8))
    move_away(recipe.model)
    return replace(answers, log_probs=(answers.log_probs + 0.3 * noise).masked_fill(~answers.mask, 0.0))


def their_inputs(recipe: GrpoRecipe, answers: Answers, experience: GroupExperience) -> dict[str, torch.Tensor]:
    """Lay a rollout out as TRL does: prompts padded on the left, completions on the right."""
    batch, mask = answers.batches[0], answers.mask
    ends = batch.attention_mask.sum(1)
    prompts = [ids[: end - size] for ids, end, size in zip(batch.input_ids, ends, mask.sum(1), strict=True)]
    longest = max(len(ids) for ids in prompts)
    pad = [longest - len(ids) for ids in prompts]
    completions = torch.full(mask.shape, recipe.data.pad_id)
    completions[mask] = batch.targets
    firsts = mask.cumsum(1) == 1
    advantages = torch.zeros(mask.shape)
    advantages[mask] = experience.advantages
    filled = [[recipe.data.pad_id] * n + ids.tolist() for ids, n in zip(prompts, pad, strict=True)]
    return {
        "prompt_ids": torch.tensor(filled),
        "prompt_mask": torch.tensor([[0] * n + [1] * (longest - n) for n in pad]),
        "completion_ids": completions,
        "completion_mask": mask.long(),
        "advantages": advantages[firsts],
        "old_per_token_logps": answers.log_probs,
        "ref_per_token_logps": answers.reference,
        "num_items_in_batch": mask.sum(),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "theirs"),
    [
        ({"loss": "grpo"}, {"loss_type": "grpo"}),
        ({"loss": "dr_grpo", "scale_rewards": "none"}, {"loss_type": "dr_grpo", "scale_rewards": "none"}),
        ({"loss": "dapo"}, {"loss_type": "dapo"}),
        ({"loss": "dapo"}, {"loss_type": "bnpo"}),
        ({"kl_correction": False}, {"use_bias_correction_kl": False}),
        ({"loss": "grpo", "kl_coef": 0.0}, {"loss_type": "grpo", "beta": 0.0}),
        ({"loss": "grpo", "clip_range": 0.05, "temperature": 0.7}, {"epsilon": 0.05, "temperature": 0.7}),
    ],
    ids=["grpo", "dr_grpo", "dapo", "bnpo", "as first published", "without KL", "narrow and cool"],
)
def test_loss_and_gradients_are_trl_s(
    tiny_base: Path, tmp_path: Path, record_property: Record, asked: dict[str, Any], theirs: dict[str, Any]
) -> None:
    recipe = opened_grpo(tmp_path / "job", tiny_base, **asked)
    algorithm = recipe.algorithm
    assert isinstance(algorithm, Grpo)
    arguments = GRPOConfig(
        output_dir=str(tmp_path / "trl"),
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=len(ROWS) * GROUP,
        num_generations=GROUP,
        max_completion_length=LONGEST,
        gradient_checkpointing=False,
        **{"loss_type": "grpo", "beta": 0.3, "epsilon": 0.2, **theirs},
    )
    trainer = GRPOTrainer(
        model=recipe.model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 12),
        processing_class=recipe.data.tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    answers = drawn(recipe)
    (experience,) = algorithm.make_experiences(answers)
    recipe.model.zero_grad()
    new, _ = response_log_probs(recipe.model, experience.batch, recipe.requested_hyperparameters.temperature)
    scored = algorithm.policy_loss(new, experience)
    loss = scored.loss / experience.items
    loss.backward()
    assert int(scored.clipped) > 0
    assert (scored.penalty > 0) is (recipe.hyperparameters.kl_coef > 0)
    ours = gradients(recipe.model)
    recipe.model.train()
    reference_loss = trainer._compute_loss(recipe.model, their_inputs(recipe, answers, experience))
    reference_loss.backward()
    reference = gradients(recipe.model)
    assert_same(record_property, loss, reference_loss, ours, reference)


def test_advantages_are_within_groups_whatever_the_order_of_the_rows(tiny_base: Path, tmp_path: Path) -> None:
    recipe = opened_grpo(tmp_path, tiny_base, batch_size=5)
    answers = drawn(recipe)
    assert list(answers.numbers) != sorted(answers.numbers)
    assert isinstance(recipe.algorithm, Grpo)
    experiences = recipe.algorithm.make_experiences(answers)
    by_number = dict(zip(answers.numbers, answers.rewards.tolist(), strict=True))
    sizes = answers.mask.sum(1).tolist()
    found = torch.cat([one.advantages for one in experiences]).split(sizes)
    for number, values in zip(answers.numbers, found, strict=True):
        first = number // GROUP * GROUP
        group = torch.tensor([by_number[other] for other in range(first, first + GROUP)])
        expected = float((by_number[number] - group.mean()) / (group.std() + 1e-4))
        assert values.tolist() == pytest.approx([expected] * len(values), abs=1e-5)
    assert sum(one.items for one in experiences) == len(ROWS) * GROUP
    assert float(torch.cat([one.weights for one in experiences]).sum()) == pytest.approx(len(ROWS) * GROUP)


def test_a_group_of_equal_rewards_teaches_nothing() -> None:
    rewards = torch.tensor([[0.1, 0.1, 0.1], [0.0, 1.0, 0.5]])
    for scale in (True, False):
        advantages = group_advantages(rewards, scale=scale)
        assert float(advantages[0].abs().max()) < 1e-3
        assert advantages.sum(1).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert group_advantages(rewards, scale=False)[1].tolist() == pytest.approx([-0.5, 0.5, 0.0])
    assert group_advantages(rewards, scale=True)[1].tolist() == pytest.approx([-1, 1, 0], abs=1e-3)


def test_the_weights_of_tokens() -> None:
    mask = torch.tensor([[True, True, True, True], [True, False, False, False]])
    assert token_weights(mask, "grpo", 8).tolist() == [[0.25] * 4, [1, 0, 0, 0]]
    assert token_weights(mask, "dapo", 8).tolist() == [[1] * 4, [1, 0, 0, 0]]
    assert token_weights(mask, "dr_grpo", 8).tolist() == [[0.125] * 4, [0.125, 0, 0, 0]]


@pytest.mark.parametrize("corrected", [True, False])
def test_the_gradient_of_the_penalty_is_one_of_the_two_kls(corrected: bool) -> None:
    logits = torch.randn(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    reference = torch.randn(6, generator=torch.Generator().manual_seed(4), dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    kl = policy.exp() @ (policy - reference) if corrected else reference.exp() @ (reference - policy)
    (expected,) = torch.autograd.grad(kl, logits, retain_graph=True)
    old = policy.detach()
    # Every token once, weighed by how often the old policy draws it: the expectation itself.
    found = grpo_loss(
        policy, old, reference, torch.zeros(6), old.exp(), clip_range=0.2, kl_coef=1.0, kl_correction=corrected
    )
    (gradient,) = torch.autograd.grad(found.loss, logits)
    torch.testing.assert_close(gradient, expected)


def test_the_penalty_estimates_the_kl_of_policy_to_reference_without_bias() -> None:
    logits = torch.randn(2, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    policy, reference = logits.log_softmax(-1)
    exact = float((policy.exp() * (policy - reference)).sum())
    assert float((policy.exp() * kl_penalty(policy, reference)).sum()) == pytest.approx(exact)
    assert float(kl_penalty(policy, reference).min()) >= 0
