from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.contract.methods.supervised import SupervisedHyperparameters as Hyperparameters
from trainer.kit.auto import (
    TOKENS_A_PASS,
    Workload,
    auto_epochs,
    base_learning_rate,
    learning_rate_factor,
    resolve_auto,
    resolve_max_length,
)


def workload(rows: int, length: int = 90) -> Workload:
    return Workload(lengths=(length,) * rows, hidden_size=576, device="cpu", dtype="bfloat16", max_length=128)


def test_the_demo_s_size() -> None:
    resolved = resolve_auto(Hyperparameters(), workload(240), 7)
    assert (resolved.n_epochs, resolved.batch_size, resolved.gradient_accumulation_steps) == (3, 8, 1)
    assert (resolved.total_steps, resolved.warmup_steps, resolved.eval_steps, resolved.checkpoint_steps) == (
        90,
        5,
        18,
        18,
    )
    assert resolved.learning_rate == 1e-3
    assert resolved.seed == 7


def test_what_the_user_states_is_kept() -> None:
    asked = Hyperparameters(
        n_epochs=2, batch_size=5, gradient_accumulation_steps=3, learning_rate_multiplier=0.5, eval_steps=4
    )
    resolved = resolve_auto(asked, workload(31), 0)
    assert (resolved.n_epochs, resolved.batch_size, resolved.gradient_accumulation_steps) == (2, 5, 3)
    assert resolved.total_steps == 2 * 3  # 31 rows: 7 batches of at most 5, 3 updates
    assert resolved.learning_rate == pytest.approx(0.5e-3)
    assert resolved.eval_steps == 4


@given(st.integers(1, 3000), st.integers(1, 8192))
def test_every_auto_fits_the_device(rows: int, length: int) -> None:
    resolved = resolve_auto(Hyperparameters(), workload(rows, length), 0)
    assert resolved.batch_size == 1 or resolved.batch_size * length <= TOKENS_A_PASS["cpu"]
    assert 1 <= resolved.batch_size * resolved.gradient_accumulation_steps <= 63
    assert resolved.total_steps >= resolved.n_epochs
    assert 1 <= resolved.checkpoint_steps <= resolved.total_steps


def test_long_rows_are_accumulated_instead() -> None:
    resolved = resolve_auto(Hyperparameters(), workload(240, 2048), 0)
    assert (resolved.batch_size, resolved.gradient_accumulation_steps) == (2, 4)


def test_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        resolve_auto(Hyperparameters(), workload(0), 0)


def test_epochs_fall_and_learning_rates_fall() -> None:
    assert [auto_epochs(rows) for rows in (10, 240, 5000, 100000)] == [5, 3, 2, 1]
    assert base_learning_rate(576) == 1e-3
    assert 2.5e-4 < base_learning_rate(4096) < 3.2e-4


@pytest.mark.parametrize(
    ("asked", "longest", "context", "expected"),
    [
        ("auto", 90, 8192, 128),
        ("auto", 1, 8192, 64),
        ("auto", 5000, 8192, 2048),
        ("auto", 900, 512, 512),
        (8192, 9, 512, 512),
    ],
)
def test_max_length(asked: int | str, longest: int, context: int, expected: int) -> None:
    assert resolve_max_length(Hyperparameters.model_validate({"max_length": asked}), longest, context) == expected


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_the_schedule_is_never_zero_and_peaks_after_warm_up(kind: str) -> None:
    factors = [learning_rate_factor(kind, step, warmup=5, total=90) for step in range(90)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:6] == sorted(factors[:6])
    assert factors[5] == 1
    assert factors[5:] == sorted(factors[5:], reverse=True)
