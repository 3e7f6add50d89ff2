"""PPO as a job: a whole run, an exact resume, a stop, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.trainer.workdirs import events_of, jsonl, lay_out
from trainer.contract.events import CheckpointEvent, ErrorEvent, EvaluationEvent, StepEvent, WarningEvent
from trainer.contract.methods.onpolicy import FunctionReward
from trainer.contract.result import ADAPTER_FOLDER, REPORT_JSON, ExitCode, read_manifest
from trainer.engine.loop.checkpoints import clean_adapter_config
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
]

REWARD: dict[str, Any] = {"function": "length", "parameters": {"target": 3}}
GIVEN: dict[str, Any] = {
    "dtype": "float32",
    "lora": {"rank": 4},
    "rollout_prompts": 6,
    "minibatches": 2,
    "batch_size": 2,
    "ppo_epochs": 2,
    "iterations": 2,
    "max_new_tokens": 6,
    "eval_steps": 1,
    "checkpoint_steps": 1,
    "missing_eos_penalty": 0.5,
    "kl_target": 1.0,
}
STEP_METRICS = {
    "reward", "score", "kl", "entropy", "clip_fraction", "policy_loss", "value_loss", "response_length", "eos_rate",
    "kl_coef", "ratio", "objective", "update_kl", "updates", "value_clip_fraction",
}  # fmt: skip


def prompt(text: str, **more: Any) -> dict[str, Any]:
    return {"input": {"messages": [{"role": "user", "content": text}]}, **more}


ROWS = [prompt("天气怎么样?"), *(prompt(f"Say {n}" + "!" * n) for n in range(7))]


def lay(workdir: Path, base: Path, *, rows: list[dict[str, Any]] = ROWS, reward: Any = REWARD, **more: Any) -> Path:
    spec = {name: more.pop(name) for name in ("resume", "start") if name in more}
    if "model" in reward:
        spec["reward"] = more.pop("reference", {"id": "ft:r", "job_id": "ftjob-r", "sha256": "0" * 64, "base": BASE})
    method = {"type": "ppo", "ppo": {"hyperparameters": {**GIVEN, "reward": reward, **more}}}
    return lay_out(workdir, base, jsonl(rows), jsonl(ROWS[:3]), method=method, sample_count=1, **spec)


BASE = {"id": "tiny-base", "fingerprint": "f" * 64}


def go(workdir: Path) -> ExitCode:
    return run_training_job(workdir, StopFlag())


def refusal(workdir: Path) -> ErrorEvent:
    assert go(workdir) == ExitCode.BAD_INPUT
    error = events_of(workdir)[-1]
    assert isinstance(error, ErrorEvent)
    return error


def weights(workdir: Path) -> dict[str, torch.Tensor]:
    return load_file(workdir / ADAPTER_FOLDER / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    workdir = lay(tmp_path_factory.mktemp("ppo") / "w", tiny_base, iterations=4)
    assert go(workdir) == ExitCode.DONE
    return workdir


def test_each_iteration_reports_itself(whole: Path) -> None:
    steps = [event for event in events_of(whole) if isinstance(event, StepEvent)]
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert all(step.metrics.keys() == STEP_METRICS for step in steps)
    assert abs(steps[0].metrics["kl"]) < 1e-5 < abs(steps[-1].metrics["kl"])
    assert steps[0].metrics["kl_coef"] != steps[1].metrics["kl_coef"]
    assert all(1 <= step.metrics["response_length"] <= 6 for step in steps)
    assert steps[-1].seconds_left == 0
    assert not [e for e in events_of(whole) if isinstance(e, WarningEvent) and "differ" in e.message]


def test_evaluations_report_and_checkpoints(whole: Path) -> None:
    events = events_of(whole)
    evaluations = [event for event in events if isinstance(event, EvaluationEvent)]
    assert [(e.model, e.step) for e in evaluations] == [("base", 0), *(("tuned", step) for step in (1, 2, 3, 4))]
    assert all({"reward", "kl", "response_length", "eos_rate"} == e.metrics.keys() for e in evaluations)
    assert abs(evaluations[0].metrics["kl"]) < 1e-5
    assert [event.step for event in events if isinstance(event, CheckpointEvent)] == [1, 2, 3, 4]
    report = json.loads((whole / REPORT_JSON).read_text())
    assert report["comparison"][0]["name"] == "reward"
    assert report["verification"]["max_abs_difference"] <= report["verification"]["tolerance"]
    manifest = read_manifest(whole)
    assert manifest.facts["kind"] == "adapter"
    assert manifest.verify_files(whole) == []
    assert json.loads((whole / ADAPTER_FOLDER / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"
    assert {entry.path for entry in read_manifest(whole / "checkpoints" / "step-4").files} >= {
        "adapter_model.safetensors", "value.safetensors", "optimizer.pt", "ppo.json", "progress.json",
    }  # fmt: skip


def test_resumed_equals_uninterrupted_to_the_bit(whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    resumed = lay(tmp_path / "resumed", tiny_base, iterations=4, resume=True)
    shutil.copytree(whole / "checkpoints" / "step-2", resumed / "checkpoint")
    assert go(resumed) == ExitCode.DONE
    expected, found = weights(whole), weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    steps = [event for event in events_of(resumed) if isinstance(event, StepEvent)]
    others = [event for event in events_of(whole) if isinstance(event, StepEvent)]
    assert [(s.step, s.train_loss, s.metrics) for s in steps] == [(s.step, s.train_loss, s.metrics) for s in others[2:]]


def test_recomputed_activations_come_from_the_acting_adapter(whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    recomputed = lay(tmp_path / "w", tiny_base, iterations=4, gradient_checkpointing=True)
    assert go(recomputed) == ExitCode.DONE, events_of(recomputed)[-1]
    expected, found = weights(whole), weights(recomputed)
    assert all(torch.allclose(expected[name], found[name], atol=1e-5) for name in expected)


def test_every_option_at_once(tiny_base: Path, tmp_path: Path) -> None:
    options = {
        "temperature": 0.7,
        "top_p": 0.9,
        "whiten_rewards": True,
        "kl_stop": 1e-9,
        "value_clip_range": None,
        "lora": {"rank": 2, "dropout": 0.5, "use_dora": True, "target_modules": ["q_proj", "v_proj"]},
        "ppo_epochs": 3,
        "iterations": "auto",
        "n_epochs": 2,
    }
    workdir = lay(tmp_path / "w", tiny_base, **options)
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    steps = [event for event in events_of(workdir) if isinstance(event, StepEvent)]
    assert len(steps) == 3  # 8 prompts twice, 6 an iteration
    assert [step.metrics["updates"] for step in steps] == [1, 1, 1]  # the second update's KL is above kl_stop


class StopAfter(StopFlag):
    """Asked to stop after it was looked at some times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def __call__(self) -> bool:
        self._looks -= 1
        self.raised = self.raised or self._looks < 0
        return self.raised


@pytest.mark.parametrize("looks", [1, 2], ids=["between iterations", "while drawing"])
def test_a_stop_leaves_a_checkpoint_that_resumes_exactly(
    whole: Path, tiny_base: Path, tmp_path: Path, looks: int
) -> None:
    stopped = lay(tmp_path / "stopped", tiny_base, iterations=4, checkpoint_steps=100)
    assert run_training_job(stopped, StopAfter(looks)) == ExitCode.STOPPED
    last = events_of(stopped)[-1]
    assert isinstance(last, CheckpointEvent)
    assert last.step == 1
    resumed = lay(tmp_path / "resumed", tiny_base, iterations=4, resume=True)
    shutil.copytree(stopped / last.path, resumed / "checkpoint")
    assert go(resumed) == ExitCode.DONE
    expected, found = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_it_starts_from_an_adapter_with_a_copy_as_the_reference(whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    start = {"id": "ft:start", "job_id": "ftjob-s", "sha256": "0" * 64}
    workdir = lay(tmp_path / "w", tiny_base, start=start, lora="auto", result="best", early_stopping_patience=5)
    shutil.copytree(whole / ADAPTER_FOLDER, workdir / "start")
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    first = next(event for event in events_of(workdir) if isinstance(event, EvaluationEvent))
    last = [event for event in events_of(whole) if isinstance(event, EvaluationEvent)][-1]
    assert first.metrics["reward"] == last.metrics["reward"]
    assert abs(first.metrics["kl"]) < 1e-5


def make_reward(folder: Path, base: Path) -> None:
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS")
    get_peft_model(model, config).save_pretrained(str(folder))
    clean_adapter_config(folder, "tiny-base")


def test_a_reward_model_on_the_same_base(tiny_base: Path, tmp_path: Path) -> None:
    workdir = lay(tmp_path / "w", tiny_base, reward={"model": "ftjob-r"})
    make_reward(workdir / "reward", tiny_base)
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    tensors = weights(workdir)
    assert not [name for name in tensors if "score" in name or "value" in name]


def test_a_reward_model_on_another_base_is_said_and_with_another_tokenizer_refused(
    tiny_base: Path, tmp_path: Path
) -> None:
    other = {"id": "other-base", "fingerprint": "0" * 64}
    named = {"id": "ft:r", "job_id": "ftjob-r", "sha256": "0" * 64, "base": other}
    workdir = lay(tmp_path / "w", tiny_base, reward={"model": "ftjob-r"}, reference=named)
    make_reward(workdir / "reward", tiny_base)
    shutil.copytree(tiny_base, workdir / "reward_base")
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    warnings = [event.message for event in events_of(workdir) if isinstance(event, WarningEvent)]
    assert any("two base models are held in memory" in message for message in warnings)

    workdir = lay(tmp_path / "v", tiny_base, reward={"model": "ftjob-r"}, reference=named)
    make_reward(workdir / "reward", tiny_base)
    shutil.copytree(tiny_base, workdir / "reward_base")
    path = workdir / "reward_base" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    path.write_text(json.dumps(tokenizer))
    error = refusal(workdir)
    assert error.code == "incompatible_reward_model"
    assert "other-base" in error.message


def test_a_collapse_stops_the_job_and_keeps_the_last_good_checkpoint(tiny_base: Path, tmp_path: Path) -> None:
    wild = {"learning_rate_multiplier": 200, "max_grad_norm": 1000.0, "iterations": 6, "kl_target": None}
    free = lay(tmp_path / "free", tiny_base, kl_max=1000.0, **wild)
    assert go(free) == ExitCode.DONE
    seen = [event.metrics["kl"] for event in events_of(free) if isinstance(event, StepEvent)]
    # How far it gets in an iteration depends on the processor: the limit is what the same run passes after its second.
    passing = next(place for place in range(2, len(seen)) if seen[place] > max(seen[:place]))
    limit = (seen[passing] + max(seen[:passing])) / 2
    workdir = lay(tmp_path / "w", tiny_base, kl_max=limit, **wild)
    error = refusal(workdir)
    assert error.code == "policy_collapsed"
    assert "KL to the reference" in error.message
    steps = [event.step for event in events_of(workdir) if isinstance(event, StepEvent)]
    saved = [event.step for event in events_of(workdir) if isinstance(event, CheckpointEvent)]
    assert saved == steps[:-1]
    kept = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    assert kept == [f"step-{step}" for step in saved[-3:]] != []
    assert not (workdir / "manifest.json").exists()


def test_prompts_that_do_not_fit_and_missing_references_are_refused_by_line(tiny_base: Path, tmp_path: Path) -> None:
    long = [*ROWS, prompt("字" * 300)]
    error = refusal(lay(tmp_path / "long", tiny_base, rows=long))
    assert error.code == "prompt_too_long"
    assert f"line {len(long)}." in error.message
    exact = {"function": "exact_match", "parameters": {}}
    rows = [prompt("a", reference="b"), prompt("c")]
    error = refusal(lay(tmp_path / "exact", tiny_base, rows=rows, reward=exact))
    assert error.code == "invalid_training_file"
    assert "line 2." in error.message
    assert FunctionReward.model_validate(exact).parsed().needs_reference
    short = lay(tmp_path / "short", tiny_base, rows=[*ROWS, prompt("x" * 100)], max_length=60)
    assert go(short) == ExitCode.DONE, events_of(short)[-1]
    messages = [event.message for event in events_of(short) if isinstance(event, WarningEvent)]
    assert any(f"at line {len(ROWS) + 1}." in message for message in messages)


def test_the_tuned_policy_loads_alone(whole: Path, tiny_base: Path) -> None:
    from peft import PeftModel

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(whole / ADAPTER_FOLDER))
    assert any(bool(value.any()) for name, value in model.named_parameters() if "lora_B" in name)
