"""KTO's loss, baseline and gradients are TRL's on the same batch; its baseline comes from other prompts' answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer

from tests.trainer.equivalence import Record, assert_same
from tests.trainer.recipes.dpo.jobs import job, opened
from tests.trainer.recipes.dpo.test_losses import gradients, move_away
from tests.trainer.recipes.kto.jobs import answers
from trainer.engine.data.batches import collate_rows
from trainer.engine.data.tokens import IGNORED
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import estimate_measure
from trainer.recipes.kto.labelled import collate_answers, find_partners
from trainer.recipes.kto.recipe import KtoRecipe, kto_loss

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def kto(workdir: Path, base: Path, rows: list[dict[str, Any]], **more: Any) -> KtoRecipe:
    recipe = opened(job(workdir, base, "kto", rows, **more))
    assert isinstance(recipe, KtoRecipe)
    return recipe


def their_inputs(recipe: KtoRecipe) -> dict[str, torch.Tensor]:
    """Lay the training rows out as TRL's collator does: one batch, with the mismatched answers beside the rows' own."""
    inputs: dict[str, torch.Tensor] = {"label": torch.tensor([row.label for row in recipe.data.training.rows])}
    for prefix, rows in (
        ("", [row.answer for row in recipe.data.training.rows]),
        ("KL_", [row.mismatched for row in recipe.data.training.rows]),
    ):
        batch = collate_rows(rows, recipe.data.pad_id)
        inputs[f"{prefix}input_ids"] = batch["input_ids"]
        inputs[f"{prefix}attention_mask"] = batch["attention_mask"]
        inputs[f"{prefix}completion_mask"] = (batch["labels"] != IGNORED).long()
    return inputs


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "clamped"), [(1.0, False), (0.05, False), (-0.05, True)])
def test_loss_and_gradients_are_trl_s(
    tiny_base: Path, tmp_path: Path, record_property: Record, scale: float, clamped: bool
) -> None:
    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.7}
    recipe = kto(tmp_path / "job", tiny_base, answers(6), hyperparameters={"beta": 0.2, **weights})
    loop = recipe.make_loop(TrainingProgress())
    arguments = KTOConfig(
        output_dir=str(tmp_path / "trl"),
        use_cpu=True,
        bf16=False,
        report_to="none",
        max_length=None,
        beta=0.2,
        **weights,
    )
    given = [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "c", "completion": "d", "label": False}]
    trainer = KTOTrainer(
        model=recipe.model,
        args=arguments,
        train_dataset=Dataset.from_list(given),
        processing_class=recipe.data.tokenizer,
    )
    move_away(recipe.model)
    with torch.no_grad():
        for name, parameter in recipe.model.named_parameters():
            if "lora_B.default" in name:
                parameter.mul_(scale)
    batch = collate_answers(recipe.data.training.rows, recipe.data.pad_id)
    batches, _ = loop.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    loss = loop.score_batch(recipe.model, batches[0]).total / loop.count_items(batch)
    loss.backward()
    ours = gradients(recipe.model)
    recipe.model.train()
    reference_loss = trainer.compute_loss(recipe.model, their_inputs(recipe))
    reference_loss.backward()
    reference = gradients(recipe.model)
    assert (loop.baseline == 0) is clamped
    assert loop.baseline == pytest.approx(trainer._metrics["train"]["kl"][-1], rel=1e-4, abs=1e-6)
    assert_same(record_property, loss, reference_loss, ours, reference)


def test_the_loss_by_hand() -> None:
    ratios, wanted = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([True, False, False])
    found = kto_loss(ratios, wanted, 0.5, beta=0.4, weights=(2.0, 3.0))

    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    expected = [2 * (1 - sigma(0.4 * 1.5)), 3 * (1 - sigma(0.4 * 1.5)), 3 * (1 - sigma(0.0))]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_answers_of_the_baseline_belong_to_other_prompts(tiny_base: Path, tmp_path: Path) -> None:
    prompts: list[tuple[int, ...]] = [(1,), (1,), (2,), (1,), (3,), (2,), (4,)]
    found = find_partners(prompts)
    assert sorted(found) == list(range(len(prompts)))
    assert all(prompts[number] != prompts[other] for number, other in enumerate(found))
    assert find_partners([(1,), (1,)]) == [1, 0]
    assert find_partners([(1,)]) == [0]
    assert find_partners([]) == []
    recipe = kto(tmp_path, tiny_base, answers(6))
    decode = recipe.data.tokenizer.decode
    texts = [str(decode(row.mismatched.input_ids)) for row in recipe.data.training.rows]
    said = [str(decode([t for t, k in zip(row.mismatched.input_ids, row.mismatched.trained, strict=True) if k]))
            for row in recipe.data.training.rows]  # fmt: skip
    for row, text, answer in zip(recipe.data.training.rows, texts, said, strict=True):
        own = str(decode(row.answer.input_ids))
        assert text.partition("<|im_start|>assistant")[0] == own.partition("<|im_start|>assistant")[0]
        assert text.rstrip().endswith(answer)
    assert "不好。<|im_end|>" in said


def test_the_baseline_is_over_all_micro_batches_of_an_update(tiny_base: Path, tmp_path: Path) -> None:
    recipe = kto(tmp_path, tiny_base, answers(6))
    loop = recipe.make_loop(TrainingProgress())
    move_away(recipe.model)
    rows = recipe.data.training.rows
    batches = [collate_answers(part, recipe.data.pad_id) for part in (rows[:3], rows[3:7], rows[7:])]
    loop.get_batch_samples(iter([collate_answers(rows, recipe.data.pad_id)]), 1, torch.device("cpu"))
    whole = loop.baseline
    loop.get_batch_samples(iter(batches), 3, torch.device("cpu"))
    assert loop.baseline == pytest.approx(whole, abs=1e-5)


def test_automatic_weights_balance_the_labels(tiny_base: Path, tmp_path: Path) -> None:
    rows = answers(12)
    wanted = sum(row["label"] for row in rows)
    recipe = kto(tmp_path / "auto", tiny_base, rows)
    assert recipe.weights == ((len(rows) - wanted) / wanted, 1.0)
    assert recipe.resolved.settings["desirable_weight"] == recipe.weights[0] > 1
    given = kto(tmp_path / "given", tiny_base, rows, hyperparameters={"desirable_weight": 1.0})
    assert given.weights == (1.0, 1.0)


def test_measures_before_training_and_the_margin_after(tiny_base: Path, tmp_path: Path) -> None:
    recipe = kto(tmp_path, tiny_base, answers(6), held_out=answers(9))
    values = {measure.name: measure.value for measure in recipe.measure_model()}
    assert values["implicit_accuracy"] == 0.5
    assert values["margin"] == 0
    assert values["loss"] == pytest.approx(
        sum(recipe.weights[not row.label] for row in recipe.data.measured.rows) / 15 / 2
    )
    move_away(recipe.model)
    measures = {measure.name: measure for measure in recipe.measure_model()}
    difference = measures["desirable_reward"].value - measures["undesirable_reward"].value
    assert measures["margin"].value == pytest.approx(difference)
    assert measures["desirable_reward"].value == pytest.approx(recipe.beta * measures["desirable_drift"].value)
    # The margin's interval is that of a difference of two independent means.
    errors = [
        (estimate_measure(measures[name]), len(measures[name].lines))
        for name in ("desirable_reward", "undesirable_reward")
    ]
    variance = sum(((found.high or 0) - (found.low or 0)) ** 2 * (rows - 1) / rows for found, rows in errors)
    margin = estimate_measure(measures["margin"])
    rows = len(measures["margin"].lines)
    assert ((margin.high or 0) - (margin.low or 0)) ** 2 * (rows - 1) / rows == pytest.approx(variance)
