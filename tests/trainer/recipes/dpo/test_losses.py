"""DPO's losses are TRL's where both mean the same, and a naive reference's where they do not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from tests.trainer.equivalence import Record, assert_same
from tests.trainer.recipes.dpo.jobs import job, message, opened, preference, preferences
from trainer.engine.data.tokens import IGNORED
from trainer.engine.preferences.pairs import collate_pairs
from trainer.kit.progress import TrainingProgress
from trainer.recipes.dpo import DpoRecipe, dpo_loss
from trainer.recipes.orpo import log_odds_ratio, orpo_loss

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
Kind = Literal["sigmoid", "ipo", "hinge", "robust"]


def move_away(model: PeftModel) -> None:
    """Move the adapter away from the reference, which was taken where its B matrices were zero."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B.default" in name:
            torch.nn.init.normal_(parameter, std=0.2)


def gradients(model: PeftModel) -> torch.Tensor:
    found = [p.grad.flatten() for _, p in sorted(model.named_parameters()) if p.requires_grad and p.grad is not None]
    model.zero_grad()
    return torch.cat(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "theirs"),
    [
        ({"loss": "sigmoid"}, {"loss_type": ["sigmoid"]}),
        ({"loss": "hinge", "beta": 0.5}, {"loss_type": ["hinge"], "beta": 0.5}),
        ({"loss": "ipo"}, {"loss_type": ["ipo"]}),
        ({"loss": "robust", "label_smoothing": 0.2}, {"loss_type": ["robust"], "label_smoothing": 0.2}),
        ({"loss": "sigmoid", "length_normalised": True}, {"loss_type": ["sigmoid_norm"]}),
    ],
    ids=["sigmoid", "hinge", "ipo", "robust", "length_normalised"],
)
def test_loss_and_gradients_are_trl_s(
    tiny_base: Path, tmp_path: Path, record_property: Record, asked: dict[str, Any], theirs: dict[str, Any]
) -> None:
    recipe = opened(job(tmp_path / "job", tiny_base, "dpo", preferences(6), hyperparameters=asked))
    assert isinstance(recipe, DpoRecipe)
    loop = recipe.make_loop(TrainingProgress())
    arguments = DPOConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to="none", max_length=None, **theirs
    )
    rows = [
        {
            "prompt": [message("user", "a")],
            "chosen": [message("assistant", "b")],
            "rejected": [message("assistant", "c")],
        }
    ]
    trainer = DPOTrainer(
        model=recipe.model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=recipe.data.tokenizer,
    )
    move_away(recipe.model)
    batch = collate_pairs(recipe.data.training.rows, recipe.data.pad_id)
    loss = loop.score_batch(recipe.model, batch).total / loop.count_items(batch)
    loss.backward()
    ours = gradients(recipe.model)
    recipe.model.train()
    inputs = {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "completion_mask": (batch["labels"] != IGNORED).long(),
    }
    reference_loss = trainer.compute_loss(recipe.model, inputs)
    reference_loss.backward()
    reference = gradients(recipe.model)
    assert_same(record_property, loss, reference_loss, ours, reference)


@pytest.mark.parametrize("kind", ["sigmoid", "robust"])
def test_label_smoothing_is_the_mean_over_flipped_labels(kind: Kind) -> None:
    chosen, rejected = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    right, wrong = dpo_loss(chosen, rejected, beta=0.3), dpo_loss(rejected, chosen, beta=0.3)
    smoothed = dpo_loss(chosen, rejected, beta=0.3, kind=kind, label_smoothing=0.2)
    if kind == "sigmoid":
        torch.testing.assert_close(smoothed, 0.8 * right + 0.2 * wrong)
    else:
        # Under labels that are flipped with this probability, the expected loss is the clean one.
        flipped = dpo_loss(rejected, chosen, beta=0.3, kind=kind, label_smoothing=0.2)
        torch.testing.assert_close(0.8 * smoothed + 0.2 * flipped, right)


def test_only_the_assistant_s_turns_behind_the_prompt_are_trained(tiny_base: Path, tmp_path: Path) -> None:
    row = preference("Hi", "x", "y")
    row["input"]["messages"] = [message("user", "Hi"), message("assistant", "old"), message("user", "go on")]
    row["preferred_output"] = [message("assistant", "第一"), message("user", "and?"), message("assistant", "second")]
    recipe = opened(job(tmp_path, tiny_base, "dpo", [row, *preferences(3)]))
    pair = recipe.data.training.rows[0]
    trained = [token for token, keep in zip(pair.chosen.input_ids, pair.chosen.trained, strict=True) if keep]
    assert recipe.data.tokenizer.decode(trained) == "第一<|im_end|>second<|im_end|>"
    assert recipe.data.tokenizer.decode(
        [t for t, k in zip(pair.rejected.input_ids, pair.rejected.trained, strict=True) if k]
    ) == ("y<|im_end|>")


def test_before_training_all_implicit_rewards_are_zero(tiny_base: Path, tmp_path: Path) -> None:
    recipe = opened(job(tmp_path, tiny_base, "dpo", preferences(8), held_out=preferences(5)))
    values = {measure.name: measure.value for measure in recipe.measure_model()}
    assert values["implicit_accuracy"] == 0.5
    assert values["margin"] == 0
    assert values["chosen_drift"] == 0
    assert values["loss"] == pytest.approx(math.log(2))


def test_orpo_s_loss_is_the_paper_s() -> None:
    chosen, rejected = torch.tensor([-0.4, -2.0], dtype=torch.float64), torch.tensor([-1.5, -0.01], dtype=torch.float64)
    odds = [p / (1 - p) for p in (chosen.exp(), rejected.exp())]
    torch.testing.assert_close(log_odds_ratio(chosen, rejected), (odds[0] / odds[1]).log())
    expected = -chosen - 0.1 * torch.sigmoid((odds[0] / odds[1]).log()).log()
    torch.testing.assert_close(orpo_loss(chosen, rejected, 0.1), expected)
