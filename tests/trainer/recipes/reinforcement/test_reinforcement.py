"""Reinforcement against graders as a job: every kind of grader, an exact resume, what is echoed and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.recipes.grpo.test_job import StopAfter, go, refusal, steps_of, warnings_of
from tests.trainer.recipes.reinforcement.graded import BOTH, CHECK, PYTHON, ROWS, SCORE, SIMILAR, item, lay
from tests.trainer.workdirs import events_of
from trainer.contract.events import CheckpointEvent, ConfiguredEvent, EvaluationEvent
from trainer.contract.result import ADAPTER_FOLDER, REPORT_JSON, ExitCode, read_manifest
from trainer.run import run_training_job

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    workdir = lay(tmp_path_factory.mktemp("graded") / "w", tiny_base, iterations=4, eval_samples=2)
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    return workdir


def adapter_hash(workdir: Path) -> str:
    return hashlib.sha256((workdir / ADAPTER_FOLDER / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_steps_evaluations_and_the_report_show_rewards(whole: Path) -> None:
    steps = steps_of(whole)
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert all(step.metrics["grader_errors"] == 0 for step in steps)
    assert any(step.metrics["reward"] > 0 for step in steps)
    evaluations = [event for event in events_of(whole) if isinstance(event, EvaluationEvent)]
    assert [(e.model, e.step) for e in evaluations] == [("base", 0), *(("tuned", step) for step in (1, 2, 3, 4))]
    report = json.loads((whole / REPORT_JSON).read_text())
    assert report["method"] == "reinforcement"
    assert report["comparison"][0]["name"] == "reward"
    assert read_manifest(whole).verify_files(whole) == []
    files = {entry.path for entry in read_manifest(whole / "checkpoints" / "step-4").files}
    assert files >= {"adapter_model.safetensors", "optimizer.pt", "reinforcement.json"}


def test_every_auto_becomes_a_number_by_openais_names(tiny_base: Path, tmp_path: Path) -> None:
    auto = {"batch_size": "auto", "eval_interval": "auto", "iterations": "auto", "n_epochs": 1, "minibatches": 1}
    workdir = lay(tmp_path / "w", tiny_base, compute_multiplier=0.5, reasoning_effort="high", **auto)
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    shown = next(event for event in events_of(workdir) if isinstance(event, ConfiguredEvent)).hyperparameters
    assert (shown["batch_size"], shown["iterations"], shown["n_epochs"]) == (4, 2, 1)
    assert (shown["compute_multiplier"], shown["group_size"], shown["answers_a_prompt"]) == (0.5, 4, 2)
    assert (shown["eval_interval"], shown["eval_steps"], shown["eval_samples"]) == (1, 1, 1)
    assert "auto" not in shown.values()
    assert len([text for text in warnings_of(workdir) if "reasoning_effort high changes nothing" in text]) == 1


def test_resumed_equals_uninterrupted_to_the_bit(whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    resumed = lay(tmp_path / "resumed", tiny_base, iterations=4, eval_samples=2, resume=True)
    shutil.copytree(whole / "checkpoints" / "step-2", resumed / "checkpoint")
    assert go(resumed) == ExitCode.DONE
    assert adapter_hash(resumed) == adapter_hash(whole)
    others = steps_of(whole)[2:]
    assert [(s.step, s.train_loss, s.metrics) for s in steps_of(resumed)] == [
        (s.step, s.train_loss, s.metrics) for s in others
    ]


def test_a_python_grader_resumes_exactly_too(tiny_base: Path, tmp_path: Path) -> None:
    source = (
        "import random\nseen = []\n"
        "def grade(sample, item):\n"
        "    seen.append(item['letter'])\n"
        "    total = 0.0\n"
        "    for word in set(sample['output_text'][:3]) | {'一', '二', 'three', 'four'}:\n"
        "        total += 1 / (3 + len(word) + len(total.hex()))\n"
        "    return total + random.random() * len(seen) + len(item['答案'])\n"
    )
    given = {"grader": PYTHON | {"source": source}, "python_graders": True, "iterations": 3}
    whole = lay(tmp_path / "whole", tiny_base, **given)
    assert go(whole) == ExitCode.DONE, events_of(whole)[-1]
    assert all(step.metrics["grader_errors"] == 0 and step.metrics["flat_groups"] == 0 for step in steps_of(whole))
    stopped = lay(tmp_path / "stopped", tiny_base, **given, checkpoint_steps=100)
    assert run_training_job(stopped, StopAfter(2)) == ExitCode.STOPPED
    last = events_of(stopped)[-1]
    assert isinstance(last, CheckpointEvent)
    resumed = lay(tmp_path / "resumed", tiny_base, **given, resume=True)
    shutil.copytree(stopped / last.path, resumed / "checkpoint")
    assert go(resumed) == ExitCode.DONE
    assert adapter_hash(resumed) == adapter_hash(whole)


def test_it_starts_from_an_adapter_that_may_be_the_judge(whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    start = {"id": "ft:start", "job_id": "ftjob-s", "sha256": "0" * 64}
    judged = {"type": "multi", "name": "m", "graders": {"a": CHECK, "b": SCORE | {"model": "ftjob-s"}}}
    workdir = lay(tmp_path / "w", tiny_base, judged | {"calculate_output": "a + b"}, start=start, lora="auto")
    shutil.copytree(whole / ADAPTER_FOLDER, workdir / "start")
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    first = next(event for event in events_of(workdir) if isinstance(event, EvaluationEvent))
    assert abs(first.metrics["kl"]) < 1e-5
    # What a small model at random says is no number: that is told once, and is a reward of 0.
    assert len([text for text in warnings_of(workdir) if "could not be graded" in text]) == 1
    assert all(step.metrics["grader_errors"] == 1 for step in steps_of(workdir))


def always_says(character: str, base: Path, folder: Path) -> Path:
    """Copy a base and let it write one token whatever it reads: a direction of all embeddings leads to it."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings[:, 0] = 10.0
        embeddings[tokenizer(character)["input_ids"][0], 0] = 20.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_base_with_its_adapters_off_can_be_the_judge(tiny_base: Path, tmp_path: Path) -> None:
    base = always_says("1", tiny_base, tmp_path / "base")
    grader = SCORE | {"sampling_params": {"max_completions_tokens": 1}}
    workdir = lay(tmp_path / "w", base, grader, missing_eos_penalty=0.25)
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    steps = steps_of(workdir)
    assert all(step.metrics["score"] == 1 and step.metrics["grader_errors"] == 0 for step in steps)


@pytest.mark.parametrize(
    ("grader", "said"),
    [
        (PYTHON, "BURNISH_PYTHON_GRADERS=on"),
        (PYTHON | {"source": "def grade(sample item):\n  pass"}, "line 1: SyntaxError"),
        (PYTHON | {"source": "def grade(sample, item):\n    return item['nothing']"}, "KeyError: 'nothing'"),
        (SCORE | {"model": "another"}, "neither the job's base tiny-base nor"),
    ],
)
def test_a_grader_that_cannot_judge_ends_the_job(
    grader: dict[str, Any], said: str, tiny_base: Path, tmp_path: Path
) -> None:
    workdir = lay(tmp_path / "w", tiny_base, grader, python_graders="BURNISH" not in said)
    error = refusal(workdir)
    assert said in error.message
    assert (error.param or "").startswith("method.reinforcement.grader")
    assert not steps_of(workdir)


def test_the_graders_fields_must_be_in_the_row(tiny_base: Path, tmp_path: Path) -> None:
    rows = [*ROWS, {"messages": [{"role": "user", "content": "没有答案"}], "letter": "e"}]
    error = refusal(lay(tmp_path / "w", tiny_base, SIMILAR, rows=rows))
    assert (error.code, error.param) == ("invalid_training_file", "training_file")
    assert f"the grader asks for {{{{item.答案}}}}, which is missing at line {len(ROWS) + 1}." in error.message
    null = {**rows[-1], "答案": None}
    error = refusal(lay(tmp_path / "n", tiny_base, SIMILAR, rows=[*ROWS, null]))
    assert f"which is missing at line {len(ROWS) + 1}." in error.message
    check = {"type": "string_check", "input": "{{sample.output_text}}"}
    contains = check | {"reference": "{{ item.答案 }}", "operation": "like"}
    error = refusal(lay(tmp_path / "e", tiny_base, contains, rows=[{**row, "答案": ""} for row in ROWS[:2]]))
    assert "which is empty, so that every answer has it in it, at line 1, 2." in error.message
    error = refusal(lay(tmp_path / "v", tiny_base, BOTH, held_out=[item("好"), {**rows[-1]}]))
    assert (error.code, error.param) == ("invalid_validation_file", "validation_file")


def sharper(base: Path, folder: Path) -> Path:
    """Copy a base whose logits can say more: those of the tiny one end at 1.3, so that no token gets likely."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.norm.weight.fill_(8.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def test_the_reward_rises_on_prompts_that_it_never_saw(tiny_base: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "iterations": 8,
        "batch_size": 4,
        "group_size": 8,
        "grpo_epochs": 1,
        "minibatches": 1,
        "max_new_tokens": 8,
        "learning_rate_multiplier": 20,
        "kl_coef": 0.0,
        "kl_max": 1000,
        "eval_interval": 8,
        "eval_samples": 8,
        "checkpoint_steps": 8,
    }
    base = sharper(tiny_base, tmp_path / "base")
    workdir = lay(tmp_path / "w", base, CHECK, rows=ROWS[:4], held_out=ROWS[4:], **given)
    assert go(workdir) == ExitCode.DONE, events_of(workdir)[-1]
    before, after = [event for event in events_of(workdir) if isinstance(event, EvaluationEvent)]
    assert before.metrics["reward"] < 0.3
    assert after.metrics["reward"] > 0.8
    reward = json.loads((workdir / REPORT_JSON).read_text())["comparison"][0]
    assert (reward["name"], reward["rows"]) == ("reward", 4)
    assert reward["difference"]["low"] > 0


def test_a_machine_that_cannot_check_a_grader_is_worth_another_attempt(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.graders.sandbox._JAIL", tmp_path / "nowhere.py")
    workdir = lay(tmp_path / "w", tiny_base, PYTHON, python_graders=True)
    assert go(workdir) == ExitCode.FAULT
    assert events_of(workdir)[-1].code == "grader_failed"  # type: ignore[union-attr]
