"""Resumes where a loop could go wrong: at an end that came early, and where a stop left an evaluation out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.recipes.ppo.test_job import ROWS
from tests.trainer.workdirs import events_of, jsonl, lay_out, training_rows
from trainer.contract.events import CheckpointEvent, EvaluationEvent, StepEvent, WarningEvent
from trainer.contract.result import ADAPTER_FOLDER, ExitCode
from trainer.engine.loop.checkpoints import verified_checkpoint
from trainer.kit.errors import TrainerError
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

pytestmark = pytest.mark.integration

Lay = Callable[..., Path]
LOOP: dict[str, Any] = {
    "n_epochs": 8,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "dtype": "float32",
    "lora": {"rank": 2, "dropout": 0.1},
    "eval_steps": 1,
    "checkpoint_steps": 100,
}
SAMPLED: dict[str, Any] = {
    "dtype": "float32",
    "lora": {"rank": 2},
    "eval_steps": 1,
    "checkpoint_steps": 100,
    "iterations": 12,
    "rollout_prompts": 2,
    "max_new_tokens": 4,
    "group_size": 2,
    "reward": {"function": "length", "parameters": {"target": 3}},
}


@pytest.fixture(params=["supervised", "grpo"])
def lay(request: pytest.FixtureRequest, tiny_base: Path, tmp_path: Path) -> Lay:
    """Lay out a job of one of the two loops: `lay(name, checkpoint=None, spec=…, **hyperparameters)`."""

    def make(
        name: str, checkpoint: Path | None = None, spec: dict[str, Any] | None = None, **hyperparameters: Any
    ) -> Path:
        kind: str = request.param
        given, rows = (LOOP, training_rows(10)) if kind == "supervised" else (SAMPLED, ROWS[:5])
        method = {"type": kind, kind: {"hyperparameters": {**given, **hyperparameters}}}
        more = {"sample_count": 0, "resume": checkpoint is not None, **(spec or {})}
        workdir = lay_out(tmp_path / name, tiny_base, jsonl(rows), jsonl(rows[:3]), method=method, **more)
        if checkpoint is not None:
            shutil.copytree(checkpoint, workdir / "checkpoint")
        return workdir

    return make


def go(workdir: Path, stop: StopFlag | None = None) -> ExitCode:
    return run_training_job(workdir, stop or StopFlag())


def of_kind(workdir: Path, kind: Any) -> list[Any]:
    return [event for event in events_of(workdir) if isinstance(event, kind)]


def last_checkpoint(workdir: Path) -> Path:
    return workdir / of_kind(workdir, CheckpointEvent)[-1].path


def weights(workdir: Path) -> bytes:
    return (workdir / ADAPTER_FOLDER / "adapter_model.safetensors").read_bytes()


def measures(workdir: Path) -> list[tuple[int, dict[str, float], float | None]]:
    return [
        (event.step, event.metrics, event.valid_loss)
        for event in of_kind(workdir, EvaluationEvent)
        if event.model == "tuned"
    ]


def test_a_training_that_had_stopped_early_does_not_continue(lay: Lay) -> None:
    wild = {"learning_rate_multiplier": 300, "early_stopping_patience": 1}
    whole = lay("whole", **wild)
    assert go(whole) is ExitCode.DONE, events_of(whole)[-1]
    said = [event.message for event in of_kind(whole, WarningEvent) if "Stopped early" in event.message]
    assert said

    resumed = lay("resumed", last_checkpoint(whole), **wild)
    assert go(resumed) is ExitCode.DONE, events_of(resumed)[-1]
    assert of_kind(resumed, StepEvent) == []
    assert [event.message for event in of_kind(resumed, WarningEvent) if "Stopped early" in event.message] == said
    assert weights(resumed) == weights(whole)


def test_a_training_that_ended_within_an_epoch_does_not_continue(lay: Lay) -> None:
    budget = {"budget": {"max_steps": 4}}
    whole = lay("whole", spec=budget)
    assert go(whole) is ExitCode.DONE
    assert len(of_kind(whole, StepEvent)) == 4
    resumed = lay("resumed", last_checkpoint(whole), budget)
    assert go(resumed) is ExitCode.DONE
    assert of_kind(resumed, StepEvent) == []
    assert weights(resumed) == weights(whole)


def test_a_training_without_minutes_left_does_not_continue(lay: Lay) -> None:
    stopped = lay("stopped")
    assert go(stopped, _StopAfter(stopped, 2)) is ExitCode.STOPPED
    spent = {"budget": {"max_gpu_minutes": 1.0}, "used_seconds": 61.0}
    resumed = lay("resumed", last_checkpoint(stopped), spent)
    assert go(resumed) is ExitCode.DONE
    assert of_kind(resumed, StepEvent) == []


@pytest.mark.parametrize("step", [2, 5])
def test_a_stop_where_an_evaluation_is_due_leaves_it_to_the_resumed_run(lay: Lay, step: int) -> None:
    options = {"result": "best", "learning_rate_multiplier": 20, "spec": {"budget": {"max_steps": 5}}}
    whole = lay("whole", **options)
    assert go(whole) is ExitCode.DONE
    stopped = lay("stopped", **options)
    # The library's loop tells a step's event after it has looked whether to stop there.
    told = step - 1 if "supervised" in (stopped / "job.json").read_text() else step
    assert go(stopped, _StopAfter(stopped, told)) is ExitCode.STOPPED
    assert [at for at, *_ in measures(stopped)] == list(range(1, step))
    assert last_checkpoint(stopped).name == f"step-{step}"
    resumed = lay("resumed", last_checkpoint(stopped), **options)
    assert go(resumed) is ExitCode.DONE
    assert measures(stopped) + measures(resumed) == measures(whole)
    assert weights(resumed) == weights(whole)


class _StopAfter(StopFlag):
    """A request to stop that comes once a step's event has been written."""

    def __init__(self, folder: Path, step: int) -> None:
        self._folder, self._step = folder, step

    @property
    def raised(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        path = self._folder / "events.jsonl"
        return path.exists() and any(event.step >= self._step for event in of_kind(self._folder, StepEvent))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    rows = jsonl(training_rows(4))
    workdir = lay_out(tmp_path_factory.mktemp("kept") / "w", tiny_base, rows, rows, {**LOOP, "n_epochs": 1})
    assert go(workdir) is ExitCode.DONE
    return last_checkpoint(workdir)


def test_whatever_file_of_a_checkpoint_is_damaged_it_is_not_loaded(checkpoint: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in checkpoint.iterdir())
    assert {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "manifest.json"} <= {*names}
    assert "training_args.bin" not in names
    for name in names:
        data = (checkpoint / name).read_bytes()
        middle = len(data) // 2
        for kind, damaged in {
            "cut": data[:middle],
            "empty": b"",
            "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "missing": None,
        }.items():
            folder = tmp_path / f"{name}-{kind}"
            shutil.copytree(checkpoint, folder)
            (folder / name).unlink()
            if damaged is not None:
                (folder / name).write_bytes(damaged)
            with pytest.raises(TrainerError, match=r"The checkpoint to resume from is damaged: .+ Start the job anew."):
                verified_checkpoint(folder)
    assert verified_checkpoint(checkpoint) == checkpoint


@pytest.mark.parametrize("name", ["pytorch_model.bin", "sub/optimizer.bin"])
def test_a_file_that_the_manifest_does_not_name_is_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "c"
    shutil.copytree(checkpoint, folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"a pickle")
    with pytest.raises(TrainerError, match=f"{name} is not in the manifest"):
        verified_checkpoint(folder)
