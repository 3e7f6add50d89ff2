"""GRPO as a job: a whole run, an exact resume, a stop, a collapse, and rewards of both kinds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.trainer.recipes.ppo.test_job import BASE, ROWS, StopAfter, go, make_reward, prompt, refusal, weights
from tests.trainer.workdirs import events_of, jsonl, lay_out
from trainer.contract.events import CheckpointEvent, ConfiguredEvent, EvaluationEvent, StepEvent, WarningEvent
from trainer.contract.methods.grpo import GrpoHyperparameters
from trainer.contract.result import ADAPTER_FOLDER, REPORT_JSON, ExitCode, read_manifest
from trainer.run import run_training_job

pytestmark = pytest.mark.integration

REWARD: dict[str, Any] = {"function": "length", "parameters": {"target": 3}}
GIVEN: dict[str, Any] = {
    "dtype": "float32",
    "lora": {"rank": 4},
    "group_size": 4,
    "rollout_prompts": 3,
    "minibatches": 2,
    "batch_size": 4,
    "grpo_epochs": 2,
    "iterations": 2,
    "max_new_tokens": 6,
    "eval_steps": 1,
    "checkpoint_steps": 1,
    "missing_eos_penalty": 0.5,
    "learning_rate_multiplier": 5,
}
STEP_METRICS = {
    "reward", "score", "kl", "entropy", "clip_fraction", "policy_loss", "response_length", "eos_rate", "kl_coef",
    "ratio", "update_kl", "updates", "kl_penalty", "group_deviation", "flat_groups",
}  # fmt: skip


def lay(workdir: Path, base: Path, *, rows: list[dict[str, Any]] = ROWS, reward: Any = REWARD, **more: Any) -> Path:
    spec = {name: more.pop(name) for name in ("resume", "start") if name in more}
    if "model" in reward:
        spec["reward"] = {"id": "ft:r", "job_id": "ftjob-r", "sha256": "0" * 64, "base": BASE}
    method = {"type": "grpo", "grpo": {"hyperparameters": {**GIVEN, "reward": reward, **more}}}
    return lay_out(workdir, base, jsonl(rows), jsonl(ROWS[:3]), method=method, sample_count=1, **spec)


def steps_of(workdir: Path) -> list[StepEvent]:
    return [event for event in events_of(workdir) if isinstance(event, StepEvent)]


def warnings_of(workdir: Path) -> list[str]:
    return [event.message for event in events_of(workdir) if isinstance(event, WarningEvent)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    workdir = lay(tmp_path_factory.mktemp("grpo") / "w", tiny_base, iterations=4)
    assert go(workdir) == ExitCode.DONE
    return workdir


def test_each_iteration_reports_itself(whole: Path) -> None:
    steps = steps_of(whole)
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert all(step.metrics.keys() == STEP_METRICS for step in steps)
    assert abs(steps[0].metrics["kl"]) < 1e-5 < abs(steps[-1].metrics["kl"])
    assert all(step.metrics["updates"] == 4 for step in steps)
    assert steps[-1].epoch == pytest.approx(4 * 3 / len(ROWS))
    assert steps[-1].metrics["kl_penalty"] > 0
    assert not [message for message in warnings_of(whole) if "differ" in message]


def test_evaluations_report_checkpoints_and_no_value_function(whole: Path) -> None:
    events = events_of(whole)
    evaluations = [event for event in events if isinstance(event, EvaluationEvent)]
    assert [(e.model, e.step) for e in evaluations] == [("base", 0), *(("tuned", step) for step in (1, 2, 3, 4))]
    assert [event.step for event in events if isinstance(event, CheckpointEvent)] == [1, 2, 3, 4]
    report = json.loads((whole / REPORT_JSON).read_text())
    assert report["comparison"][0]["name"] == "reward"
    manifest = read_manifest(whole)
    assert manifest.verify_files(whole) == []
    files = {entry.path for entry in read_manifest(whole / "checkpoints" / "step-4").files}
    assert files >= {"adapter_model.safetensors", "optimizer.pt", "grpo.json"}
    assert "value.safetensors" not in files
    configured = next(event for event in events if isinstance(event, ConfiguredEvent))
    adapter = sum(tensor.numel() for tensor in weights(whole).values())
    assert configured.counts["trainable_parameters"] == adapter
    assert configured.hyperparameters["gradient_accumulation_steps"] == 2


def test_resumed_equals_uninterrupted_to_the_bit(whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    resumed = lay(tmp_path / "resumed", tiny_base, iterations=4, resume=True)
    shutil.copytree(whole / "checkpoints" / "step-2", resumed / "checkpoint")
    assert go(resumed) == ExitCode.DONE
    expected, found = weights(whole), weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    others = steps_of(whole)[2:]
    assert [(s.step, s.train_loss, s.metrics) for s in steps_of(resumed)] == [
        (s.step, s.train_loss, s.metrics) for s in others
    ]


def test_a_stop_while_drawing_leaves_a_checkpoint_that_resumes_exactly(
    whole: Path, tiny_base: Path, tmp_path: Path
) -> None:
    stopped = lay(tmp_path / "stopped", tiny_base, iterations=4, checkpoint_steps=100)
    assert run_training_job(stopped, StopAfter(2)) == ExitCode.STOPPED
    last = events_of(stopped)[-1]
    assert isinstance(last, CheckpointEvent)
    resumed = lay(tmp_path / "resumed", tiny_base, iterations=4, resume=True)
    shutil.copytree(stopped / last.path, resumed / "checkpoint")
    assert go(resumed) == ExitCode.DONE
    expected, found = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_every_option_at_once(tiny_base: Path, tmp_path: Path) -> None:
    options = {
        "loss": "dr_grpo",
        "scale_rewards": "none",
        "kl_coef": 0.0,
        "temperature": 0.7,
        "top_p": 0.9,
        "kl_stop": 1e-9,
        "grpo_epochs": 3,
        "minibatches": 1,
        "iterations": "auto",
        "n_epochs": 1,
        "gradient_checkpointing": True,
        "result": "best",
        "lora": {"rank": 2, "dropout": 0.5, "use_dora": True, "target_modules": ["q_proj", "v_proj"]},
    }
    workdir = lay(tmp_path / "w", tiny_base, **options)
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    steps = steps_of(workdir)
    assert len(steps) == 3  # 8 prompts, 3 an iteration
    assert [step.metrics["updates"] for step in steps] == [1, 1, 1]  # the second update's KL is above kl_stop
    assert all(step.metrics["kl_penalty"] == 0 for step in steps)


def test_it_starts_from_an_adapter_with_a_copy_as_the_reference(whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    start = {"id": "ft:start", "job_id": "ftjob-s", "sha256": "0" * 64}
    workdir = lay(tmp_path / "w", tiny_base, start=start, lora="auto")
    shutil.copytree(whole / ADAPTER_FOLDER, workdir / "start")
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    first = next(event for event in events_of(workdir) if isinstance(event, EvaluationEvent))
    last = [event for event in events_of(whole) if isinstance(event, EvaluationEvent)][-1]
    assert first.metrics["reward"] == last.metrics["reward"]
    assert abs(first.metrics["kl"]) < 1e-5


def test_a_reward_model_on_the_same_base(tiny_base: Path, tmp_path: Path) -> None:
    workdir = lay(tmp_path / "w", tiny_base, reward={"model": "ftjob-r"})
    make_reward(workdir / "reward", tiny_base)
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    assert not [name for name in weights(workdir) if "score" in name or "reward" in name]

    broken = lay(tmp_path / "broken", tiny_base, reward={"model": "ftjob-r"})
    shutil.copytree(workdir / ADAPTER_FOLDER, broken / "reward")
    error = refusal(broken)
    assert error.code == "incompatible_reward_model"
    assert error.param == "method.grpo.hyperparameters.reward.model"


def test_a_reward_without_any_difference_is_reported_once(tiny_base: Path, tmp_path: Path) -> None:
    reward = {"function": "contains", "parameters": {"words": ["支离破碎"]}}
    workdir = lay(tmp_path / "w", tiny_base, reward=reward, missing_eos_penalty=None)
    assert go(workdir) == ExitCode.DONE
    assert all(step.metrics["flat_groups"] == 1 for step in steps_of(workdir))
    assert len([message for message in warnings_of(workdir) if "the reward taught nothing" in message]) == 1


def test_evaluations_that_get_no_better_end_the_job(tiny_base: Path, tmp_path: Path) -> None:
    reward = {"function": "contains", "parameters": {"words": ["支离破碎"]}}
    options = {"missing_eos_penalty": None, "early_stopping_patience": 2, "iterations": 9}
    workdir = lay(tmp_path / "w", tiny_base, reward=reward, **options)
    assert go(workdir) == ExitCode.DONE
    assert len(steps_of(workdir)) == 3
    assert any("Stopped early at step 3" in message for message in warnings_of(workdir))


def test_a_collapse_stops_the_job_and_keeps_the_last_good_checkpoint(tiny_base: Path, tmp_path: Path) -> None:
    wild = {"learning_rate_multiplier": 1000, "max_grad_norm": 1000.0, "kl_max": 0.1, "iterations": 6}
    workdir = lay(tmp_path / "w", tiny_base, **wild)
    error = refusal(workdir)
    assert error.code == "policy_collapsed"
    assert error.param == "method.grpo.hyperparameters.kl_max"
    assert "KL to the reference" in error.message
    steps = [step.step for step in steps_of(workdir)]
    assert [event.step for event in events_of(workdir) if isinstance(event, CheckpointEvent)] == steps[:-1]
    assert not (workdir / "manifest.json").exists()


def test_a_group_needs_two_answers_and_prompts_must_fit(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="group_size"):
        GrpoHyperparameters.model_validate({"reward": REWARD, "group_size": 1})
    error = refusal(lay(tmp_path / "long", tiny_base, rows=[*ROWS, prompt("字" * 300)]))
    assert error.code == "prompt_too_long"
    assert f"line {len(ROWS) + 1}." in error.message
