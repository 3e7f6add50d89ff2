"""Budgets that cannot be planned, and what a resumed run makes of one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.test_stop_and_resume import lay, stop_in_training
from tests.trainer.workdirs import events_of, jsonl, lay_out, run, run_here, training_rows
from trainer.contract.events import CheckpointEvent, StepEvent
from trainer.contract.job import Budget
from trainer.contract.result import ADAPTER_FOLDER, ExitCode, read_manifest
from trainer.kit.budget import BudgetMeter

PROMPTS = [{"input": {"messages": [{"role": "user", "content": f"Say 好 {n}."}]}} for n in range(4)]
REWARD = {"function": "contains", "parameters": {"words": ["a"]}}


def test_a_meter_without_a_budget_measures_nothing() -> None:
    meter = BudgetMeter(None, 10**9)
    assert not meter.check_budget(5, 10**12)
    assert (meter.conclude_training(5), meter.plan_sentence) == (None, None)


def test_minutes_of_earlier_attempts_count() -> None:
    meter = BudgetMeter(Budget(max_gpu_minutes=2), used_seconds=119)
    assert not meter.check_budget(1, 10)
    later = BudgetMeter(Budget(max_gpu_minutes=2), used_seconds=120)
    assert later.check_budget(7, 10)
    assert (
        later.conclude_training(7)
        == "The budget ended the training at step 7: the job has run for 2.0 minutes, 2 are allowed."
    )


@pytest.mark.integration
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, tiny_base: Path) -> None:
    budget = {"max_steps": 40}
    whole = lay(tmp_path / "whole", tiny_base, budget=budget)
    assert run(whole).returncode == ExitCode.DONE
    stopped = lay(tmp_path / "stopped", tiny_base, budget=budget)
    assert stop_in_training(stopped) == ExitCode.STOPPED
    last = events_of(stopped)[-1]
    assert isinstance(last, CheckpointEvent)
    resumed = lay(tmp_path / "resumed", tiny_base, budget=budget, resume=True)
    shutil.copytree(stopped / last.path, resumed / "checkpoint")
    assert run(resumed).returncode == ExitCode.DONE
    one, other = read_manifest(whole), read_manifest(resumed)
    assert one.trained_tokens == other.trained_tokens
    assert (one.facts["step"], other.facts["step"], other.facts["ended_by"]) == (40, 40, "budget")
    weights = f"{ADAPTER_FOLDER}/adapter_model.safetensors"
    assert (whole / weights).read_bytes() == (resumed / weights).read_bytes()


@pytest.mark.integration
def test_time_that_is_over_ends_the_training_after_the_step(tmp_path: Path, tiny_base: Path) -> None:
    hyperparameters = {"n_epochs": 20, "dtype": "float32"}
    more: dict[str, Any] = {"budget": {"max_gpu_minutes": 1}, "used_seconds": 60, "sample_count": 0}
    workdir = lay_out(tmp_path / "w", tiny_base, jsonl(training_rows()), None, hyperparameters, **more)
    assert run_here(workdir) == ExitCode.DONE
    assert [event.step for event in events_of(workdir) if isinstance(event, StepEvent)] == [1]
    assert (workdir / "checkpoints/step-1/manifest.json").is_file()
    assert read_manifest(workdir).facts["ended_by"] == "budget"


@pytest.mark.integration
def test_iterations_end_with_the_one_that_reaches_the_tokens(tmp_path: Path, tiny_base: Path) -> None:
    own = {"reward": REWARD, "max_new_tokens": 4, "iterations": 6, "rollout_prompts": 2, "group_size": 2}
    method = {"type": "grpo", "grpo": {"hyperparameters": {**own, "dtype": "float32", "lora": {"rank": 2}}}}
    workdir = lay_out(
        tmp_path / "w", tiny_base, jsonl(PROMPTS), method=method, budget={"max_tokens": 200}, sample_count=0
    )
    assert run_here(workdir) == ExitCode.DONE
    seen = [event.tokens_seen for event in events_of(workdir) if isinstance(event, StepEvent)]
    assert len(seen) < 6
    assert seen[-1] >= 200 > ([0, *seen])[-2]
    assert read_manifest(workdir).facts["ended_by"] == "budget"
