"""The reward model's loss is TRL's on pairs, and on longer rankings a naive loop's over separate forwards."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from tests.trainer.equivalence import Record, assert_same
from tests.trainer.recipes.dpo.jobs import job, preference
from tests.trainer.recipes.reward.jobs import ranking, rankings, reward_recipe
from tests.trainer.workdirs import events_of
from trainer.contract.events import StepEvent
from trainer.contract.result import ExitCode
from trainer.kit.progress import TrainingProgress
from trainer.kit.stop import StopFlag
from trainer.recipes.reward.rankings import collate_rankings
from trainer.recipes.reward.recipe import RewardRecipe
from trainer.run import run_training_job

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def shaken(recipe: RewardRecipe) -> None:
    """Move the adapter away from zero, where half of its gradients would be zero too."""
    torch.manual_seed(5)
    for name, parameter in recipe.model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3 if "score" in name else 0.1)


def gradients(recipe: RewardRecipe) -> torch.Tensor:
    """Return the gradients of adapter and head, flattened, and clear them."""
    named = sorted((name, p) for name, p in recipe.model.named_parameters() if p.requires_grad)
    found = [p.grad.double().flatten() for _, p in named if p.grad is not None]
    assert len(found) == len(named)
    recipe.model.zero_grad()
    return torch.cat(found)


def pairs_with_scores() -> list[dict[str, Any]]:
    return [
        ranking("Hi", [("Hello, friend!", 1), ("No.", 2)], [0.9, 0.1]),
        ranking("你好吗?", [("我很好, 谢谢!", 1), ("不好。", 2)], [3.0, 1.5]),
        ranking("Sing.", [("La la la la la la la.", 1), ("?", 2)], [0.5, 0.5]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "theirs"),
    [
        ({}, {}),
        ({"margin": True}, {}),
        ({"centering": 0.1}, {"center_rewards_coefficient": 0.1}),
        ({"margin": True, "centering": 0.01}, {"center_rewards_coefficient": 0.01}),
    ],
    ids=["plain", "margin", "centering", "both"],
)
def test_loss_and_gradients_are_trl_s_on_pairs(
    tiny_base: Path, tmp_path: Path, record_property: Record, asked: dict[str, Any], theirs: dict[str, Any]
) -> None:
    rows = pairs_with_scores()
    recipe = reward_recipe(tmp_path / "job", tiny_base, rows, hyperparameters=asked)
    loop = recipe.make_loop(TrainingProgress())
    given = [
        {
            "prompt": row["input"]["messages"],
            "chosen": [row["responses"][0]["message"]],
            "rejected": [row["responses"][1]["message"]],
            **({"margin": row["responses"][0]["score"] - row["responses"][1]["score"]} if "margin" in asked else {}),
        }
        for row in rows
    ]
    arguments = RewardConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to="none", max_length=None, **theirs
    )
    trainer = RewardTrainer(
        model=recipe.model,
        args=arguments,
        train_dataset=Dataset.from_list(given),
        processing_class=recipe.data.tokenizer,
    )
    shaken(recipe)
    batch = collate_rankings(recipe.data.training.rows, recipe.data.pad_id)
    loss = loop.score_batch(recipe.model, batch).total / loop.count_items(batch)
    loss.backward()
    ours = gradients(recipe)
    # TRL's own tokens and padding of the same conversations, not only its formula.
    inputs = trainer.data_collator(list(trainer.train_dataset))  # pyright: ignore[reportArgumentType]
    assert ("margin" in inputs) == ("margin" in asked)
    reference_loss: Any = trainer.compute_loss(recipe.model, inputs)
    reference_loss.backward()
    assert_same(record_property, loss, reference_loss, ours, gradients(recipe))


def uneven() -> list[dict[str, Any]]:
    return [
        ranking("Hi", [("Hello, friend!", 1), ("No.", 2)], [0.9, 0.1]),
        ranking("你好吗?", [("不好。", 2), ("我很好, 谢谢!", 1), ("一般", 2)], [0.2, 0.8, 0.2]),
        ranking("Sing.", [("?", 4), ("La la la.", 1), ("La", 2), ("Lalala lala lala", 1), ("Do", 3)]),
        ranking("Go", [("a", 1), ("bb", 7)], [2.0, -1.0]),
        ranking("Stop", [("one", 3), ("two", 2), ("three", 1)], [1.0, 2.0, 4.0]),
    ]


def naive_loss(recipe: RewardRecipe, rows: list[dict[str, Any]], *, margin: bool, centering: float) -> torch.Tensor:
    """The definition: each pair's two responses go through the model by themselves, unpadded."""
    prompts: list[torch.Tensor] = []
    for row, tokenized in zip(rows, recipe.data.training.rows, strict=True):
        losses: list[torch.Tensor] = []
        numbered = list(zip(row["responses"], tokenized.responses, strict=True))
        for (one, better), (other, worse) in itertools.permutations(numbered, 2):
            if one["rank"] >= other["rank"]:
                continue
            high, low = (recipe.model(torch.tensor([ids.input_ids])).logits[0, 0] for ids in (better, worse))
            wanted = one["score"] - other["score"] if margin and "score" in one else 0.0
            losses.append(-logsigmoid(high - low - wanted) + centering * (high + low) ** 2)
        prompts.append(torch.stack(losses).mean())
    return torch.stack(prompts).mean()


@pytest.mark.slow
@pytest.mark.parametrize(("margin", "centering"), [(False, 0.0), (True, 0.05)])
@pytest.mark.parametrize("prompts", [1, 2, 5])
def test_the_loss_of_rankings_against_a_naive_loop(
    tiny_base: Path, tmp_path: Path, record_property: Record, margin: bool, centering: float, prompts: int
) -> None:
    rows = uneven()
    asked = {"margin": margin, "centering": centering}
    recipe = reward_recipe(tmp_path, tiny_base, rows, hyperparameters=asked)
    loop = recipe.make_loop(TrainingProgress())
    shaken(recipe)
    recipe.model.eval()
    expected = naive_loss(recipe, rows, margin=margin, centering=centering)
    expected.backward()
    reference = gradients(recipe)
    split = [recipe.data.training.rows[start : start + prompts] for start in range(0, len(rows), prompts)]
    batches = [collate_rankings(part, recipe.data.pad_id) for part in split]
    items = sum(loop.count_items(batch) for batch in batches)
    losses = [loop.score_batch(recipe.model, batch).total / items for batch in batches]
    for loss in losses:
        loss.backward()
    assert_same(record_property, torch.stack(losses).sum(), expected, gradients(recipe), reference)


def test_each_response_goes_through_the_model_once(tiny_base: Path, tmp_path: Path) -> None:
    recipe = reward_recipe(tmp_path, tiny_base, uneven())
    loop = recipe.make_loop(TrainingProgress())
    seen: list[tuple[int, ...]] = []

    def count(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        for ids, real in zip(given["input_ids"].tolist(), given["attention_mask"].sum(1).tolist(), strict=True):
            seen.append(tuple(ids[:real]))

    recipe.model.get_base_model().register_forward_pre_hook(count, with_kwargs=True)
    loop.score_batch(recipe.model, collate_rankings(recipe.data.training.rows, recipe.data.pad_id))
    assert Counter(seen) == Counter(r.input_ids for row in recipe.data.training.rows for r in row.responses)


@pytest.mark.slow
def test_an_update_is_the_mean_over_its_prompts_however_they_are_split(tiny_base: Path, tmp_path: Path) -> None:
    first: list[StepEvent] = []
    for name, sizes in (("whole", (6, 1)), ("split", (2, 3)), ("uneven", (4, 2))):
        hyperparameters = {"n_epochs": 1, "batch_size": sizes[0], "gradient_accumulation_steps": sizes[1]}
        folder = job(tmp_path / name, tiny_base, "reward", rankings(6), hyperparameters=hyperparameters)
        assert run_training_job(folder, StopFlag()) is ExitCode.DONE
        first.append(next(event for event in events_of(folder) if isinstance(event, StepEvent)))
    for other in first[1:]:
        assert other.train_loss == pytest.approx(first[0].train_loss, rel=1e-5)
        assert other.grad_norm == pytest.approx(first[0].grad_norm, rel=1e-4)
        assert other.metrics == pytest.approx(first[0].metrics, rel=1e-4, abs=1e-6)


def test_pairs_of_preference_rows_are_rankings_of_two(tiny_base: Path, tmp_path: Path) -> None:
    pair = reward_recipe(tmp_path / "pair", tiny_base, [preference("你好?", "好!", "No.")])
    two = reward_recipe(tmp_path / "ranking", tiny_base, [ranking("你好?", [("好!", 1), ("No.", 2)])])
    assert pair.data.training.rows == two.data.training.rows
