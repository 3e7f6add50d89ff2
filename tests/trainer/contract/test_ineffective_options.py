"""Hyperparameters that change nothing in a job are named, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.contract.methods import METHODS_BY_TYPE

LENGTH = {"function": "length", "parameters": {"target": 5}}
NEEDED: dict[str, dict[str, Any]] = {
    "ppo": {"hyperparameters": {"reward": LENGTH}},
    "grpo": {"hyperparameters": {"reward": LENGTH}},
    "reinforcement": {
        "grader": {
            "type": "string_check",
            "name": "g",
            "input": "{{sample.output_text}}",
            "reference": "a",
            "operation": "eq",
        }
    },
}


def find(kind: str, *, has_validation: bool, **given: Any) -> dict[str, str]:
    block = NEEDED.get(kind, {})
    hyperparameters = {**block.get("hyperparameters", {}), **given}
    method = METHODS_BY_TYPE[kind].model_validate({"type": kind, kind: {**block, "hyperparameters": hyperparameters}})
    return method.hyperparameters.find_ineffective(has_validation=has_validation)


@pytest.mark.parametrize("kind", METHODS_BY_TYPE)
def test_options_of_evaluations_need_a_validation_file(kind: str) -> None:
    given = {"result": "best", "early_stopping_patience": 2, "eval_steps": 3}
    assert set(find(kind, has_validation=False, **given)) == set(given)
    assert find(kind, has_validation=True, **given) == {}
    assert find(kind, has_validation=False) == {}


@pytest.mark.parametrize(
    ("kind", "given", "named"),
    [
        ("dpo", {"loss": "hinge", "label_smoothing": 0.1}, ["label_smoothing"]),
        ("dpo", {"loss": "robust", "label_smoothing": 0.1}, []),
        ("dpo", {"loss": "ipo", "length_normalised": True}, ["length_normalised"]),
        ("grpo", {"clip_range": 0.1, "kl_stop": 1.0}, ["clip_range", "kl_stop"]),
        ("grpo", {"clip_range": 0.1, "minibatches": 2}, []),
        ("ppo", {"clip_range": 0.1, "kl_stop": 1.0}, []),
        ("ppo", {"clip_range": 0.1, "ppo_epochs": 1}, ["clip_range"]),
        ("grpo", {"kl_coef": 0, "kl_correction": False}, ["kl_correction"]),
    ],
)
def test_options_of_another_choice(kind: str, given: dict[str, Any], named: list[str]) -> None:
    assert list(find(kind, has_validation=True, **given)) == named


def test_openais_names_of_evaluations() -> None:
    assert set(find("reinforcement", has_validation=False, eval_interval=2, eval_samples=3)) == {
        "eval_interval",
        "eval_samples",
    }
