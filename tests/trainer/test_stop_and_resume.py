"""A run that is stopped and resumed ends with the adapter of an uninterrupted one."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.workdirs import events_of, jsonl, lay_out, run, start, training_rows
from trainer.contract.events import FILE_NAME, CheckpointEvent, StepEvent
from trainer.contract.result import ADAPTER_FOLDER, MANIFEST_NAME, ExitCode, read_manifest

pytestmark = pytest.mark.integration

# Rows of many lengths, dropout and an odd number of batches: whatever resuming could get wrong.
HYPERPARAMETERS = {
    "n_epochs": 25,
    "batch_size": 2,
    "gradient_accumulation_steps": 3,
    "checkpoint_steps": 10000,
    "eval_steps": 10000,
    "dtype": "float32",
    "lora": {"rank": 4, "dropout": 0.1},
}


def lay(workdir: Path, base: Path, **spec: object) -> Path:
    return lay_out(workdir, base, jsonl(training_rows(22)), None, HYPERPARAMETERS, sample_count=0, **spec)


def stop_in_training(workdir: Path) -> int:
    """Send SIGTERM after some steps of the second epoch and return the exit code."""
    child = start(workdir)
    deadline = time.monotonic() + 120
    events = workdir / FILE_NAME
    while not (events.exists() and b'"step":6,' in events.read_bytes()):
        assert child.poll() is None, child.communicate()[1].decode()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    return child.returncode


def test_resumed_equals_uninterrupted(tmp_path: Path, tiny_base: Path) -> None:
    whole = lay(tmp_path / "whole", tiny_base)
    assert run(whole).returncode == ExitCode.DONE

    stopped = lay(tmp_path / "stopped", tiny_base)
    assert stop_in_training(stopped) == ExitCode.STOPPED
    last = events_of(stopped)[-1]
    assert isinstance(last, CheckpointEvent)
    assert 6 <= last.step < 100
    assert read_manifest(stopped / last.path).verify_files(stopped / last.path) == []
    assert not (stopped / MANIFEST_NAME).exists()

    resumed = lay(tmp_path / "resumed", tiny_base, resume=True)
    shutil.copytree(stopped / last.path, resumed / "checkpoint")
    child = run(resumed)
    assert child.returncode == ExitCode.DONE, child.stderr.decode()[-2000:]

    steps = [event for event in events_of(resumed) if isinstance(event, StepEvent)]
    assert steps[0].step == last.step + 1
    expected = [event for event in events_of(whole) if isinstance(event, StepEvent)]
    assert [step.train_loss for step in steps] == [step.train_loss for step in expected[last.step :]]
    assert steps[-1].tokens_seen == expected[-1].tokens_seen
    assert read_manifest(resumed).trained_tokens == read_manifest(whole).trained_tokens
    report = json.loads((resumed / "output/report.json").read_text())
    assert [step["step"] for step in report["steps"]] == [step.step for step in expected]
    assert report["measured_on"] == "training"
    assert report["verdict"]["outcome"] == "not_held_out"
    assert "No validation file was given" in (resumed / "output/report.html").read_text()
    ours = load_file(resumed / ADAPTER_FOLDER / "adapter_model.safetensors")
    theirs = load_file(whole / ADAPTER_FOLDER / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, tiny_base: Path, finished: Path) -> None:
    workdir = lay(tmp_path / "w", tiny_base, resume=True)
    shutil.copytree(finished / "checkpoints/step-8", workdir / "checkpoint")
    (workdir / "checkpoint/optimizer.pt").write_bytes(b"not an optimizer")
    assert run(workdir).returncode == ExitCode.FAULT
    error = events_of(workdir)[-1]
    assert error.type == "error"
    assert error.code == "checkpoint_broken"
    assert "optimizer.pt" in error.message


def test_stopped_while_loading(tmp_path: Path, tiny_base: Path) -> None:
    workdir = lay(tmp_path / "w", tiny_base)
    child = start(workdir)
    deadline = time.monotonic() + 120
    while not (workdir / FILE_NAME).exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == ExitCode.STOPPED
    assert not (workdir / MANIFEST_NAME).exists()
