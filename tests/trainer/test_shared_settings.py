"""The hyperparameters that every method shares: kinds of LoRA, recomputation, formats, and the best evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from peft import PeftConfig
from safetensors.torch import load_file

from tests.trainer.workdirs import chat, events_of, jsonl, lay_out, training_rows
from trainer.contract.events import ErrorEvent, EvaluationEvent, StepEvent, WarningEvent
from trainer.contract.result import ADAPTER_FOLDER, ExitCode
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

SMALL: dict[str, Any] = {"batch_size": 4, "n_epochs": 1, "dtype": "float32", "learning_rate_multiplier": 3}


def done(
    workdir: Path, base: Path, *, held_out: list[dict[str, Any]] | None = None, exits: int = 0, **hyperparameters: Any
) -> Path:
    lora = {"rank": 4, "alpha": 8, **hyperparameters.pop("lora", {})}
    given = {**SMALL, "lora": lora, **hyperparameters}
    lay_out(workdir, base, jsonl(training_rows()), jsonl(held_out) if held_out else None, given)
    assert run_training_job(workdir, StopFlag()) == exits
    return workdir


def losses(workdir: Path) -> list[float]:
    return [event.train_loss for event in events_of(workdir) if isinstance(event, StepEvent)]


@pytest.mark.slow
def test_the_kinds_of_lora_are_peft_s(tmp_path: Path, tiny_base: Path) -> None:
    plain = losses(done(tmp_path / "plain", tiny_base))
    for kind in ("use_dora", "use_rslora"):
        workdir = done(tmp_path / kind, tiny_base, lora={kind: True})
        config = PeftConfig.from_pretrained(workdir / ADAPTER_FOLDER)
        assert getattr(config, kind) is True
        assert losses(workdir)[0] == pytest.approx(plain[0], rel=1e-5), "a new adapter changes nothing, of either kind"
        assert losses(workdir)[-1] != plain[-1]


@pytest.mark.slow
def test_recomputed_activations_change_nothing(tmp_path: Path, tiny_base: Path) -> None:
    kept, recomputed = (
        losses(done(tmp_path / str(on), tiny_base, gradient_checkpointing=on, lora={"dropout": 0.1}))
        for on in (False, True)
    )
    assert recomputed == pytest.approx(kept, rel=1e-6)


@pytest.mark.slow
def test_bfloat16_is_near_float32(tmp_path: Path, tiny_base: Path) -> None:
    exact, rough = (losses(done(tmp_path / kind, tiny_base, dtype=kind)) for kind in ("float32", "bfloat16"))
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedules(tmp_path: Path, tiny_base: Path, schedule: str) -> None:
    workdir = done(tmp_path / "w", tiny_base, lr_scheduler=schedule, warmup_ratio=0.34)
    rates = [event.learning_rate for event in events_of(workdir) if isinstance(event, StepEvent)]
    top = max(rates)
    assert len(rates) == 6
    assert rates[:3] == pytest.approx([top / 4, top / 2, top * 3 / 4]), "not one warm-up step is wasted"
    decay = [(step - 3) / 3 for step in range(3, 6)]
    expected = {
        "cosine": [(1 + math.cos(math.pi * share)) / 2 for share in decay],
        "linear": [1 - share for share in decay],
        "constant": [1.0] * 3,
    }[schedule]
    assert [rate / top for rate in rates[3:]] == pytest.approx(expected)


def test_four_bits_without_a_gpu_are_refused(tmp_path: Path, tiny_base: Path) -> None:
    workdir = done(tmp_path / "w", tiny_base, quantization="4bit", exits=ExitCode.BAD_INPUT)
    (error,) = [event for event in events_of(workdir) if isinstance(event, ErrorEvent)]
    assert (error.code, error.param) == ("invalid_hyperparameters", "quantization")
    assert "needs a GPU" in error.message


@pytest.mark.slow
def test_it_ends_early_and_keeps_the_best_weights(tmp_path: Path, tiny_base: Path) -> None:
    """Held-out answers that contradict the training rows: the longer it trains, the worse it gets."""
    held_out = [chat(f"Say {number}.", "完全不同的回答" * 2) for number in range(8)]
    common: dict[str, Any] = {"n_epochs": 6, "eval_steps": 1, "learning_rate_multiplier": 30, "checkpoint_steps": 1}
    workdir = done(tmp_path / "w", tiny_base, held_out=held_out, early_stopping_patience=2, result="best", **common)
    events = events_of(workdir)
    values = {event.step: event.valid_loss for event in events if isinstance(event, EvaluationEvent) and event.step}
    best = min(values, key=lambda step: values[step] or 0)
    last = max(event.step for event in events if isinstance(event, StepEvent))
    assert last < 36
    assert last == best + 2
    told = [event.message for event in events if isinstance(event, WarningEvent)]
    assert any("Stopped early at step" in message for message in told)
    assert any(f"weights of step {best}, the best evaluation" in message for message in told)
    exported = load_file(workdir / ADAPTER_FOLDER / "adapter_model.safetensors")
    kept = load_file(workdir / "checkpoints" / f"step-{best}" / "adapter_model.safetensors")
    assert all(exported[name].equal(kept[name]) for name in exported)
    report = json.loads((workdir / "output" / "report.json").read_text())
    assert report["comparison"][0]["tuned"]["value"] == pytest.approx(values[best], rel=1e-5)
