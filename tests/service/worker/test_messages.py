from __future__ import annotations

from service.worker.messages import row_of
from trainer.contract.events import EvaluationEvent, StepEvent


def test_a_methods_own_numbers_are_shown() -> None:
    step = StepEvent(
        step=3,
        total_steps=9,
        epoch=0.3,
        train_loss=0.69,
        metrics={"kl": 1.5, "reward": float("nan")},
        learning_rate=1e-4,
        tokens_seen=5,
        tokens_per_second=1.0,
        seconds_left=float("inf"),
    )
    row = row_of(step)
    assert row is not None
    data = row.get("data")
    assert data is not None
    assert (data["kl"], data["reward"], data["seconds_left"]) == (1.5, None, None)


def test_an_evaluation_without_a_loss_names_its_headline() -> None:
    event = EvaluationEvent(model="base", step=0, total_steps=9, full=True, metrics={"reward": 0.25, "kl": 0.0})
    row = row_of(event)
    assert row is not None
    assert row["message"] == "Step 0/9: starting model, full validation reward=0.25"
    data = row.get("data")
    assert data is not None
    assert (data["full_valid_reward"], data["full_valid_kl"], data["full_valid_loss"]) == (0.25, 0.0, None)
