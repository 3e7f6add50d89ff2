"""A trainer without a model, for jobs by the hundred: `trainer_program.py LEDGER STEP_SECONDS WORKDIR`.

A real process with the trainer's contract: it reads `job.json` and a checkpoint, writes events, checkpoints and a
result, and stops at SIGTERM. What it "trains" is a chain of hashes, so its result shows whether all its steps were
run, once each and in their order, however often it was resumed. It makes as many steps as the job asks for epochs, and
each takes STEP_SECONDS times the micro-batches that the job asks for.
"""

from __future__ import annotations

import hashlib
import signal
import sys
import time
from pathlib import Path

from tests.faults import ledger
from trainer.contract import events
from trainer.contract.job import JobSpec
from trainer.contract.result import (
    ADAPTER_FOLDER,
    REPORT_HTML,
    REPORT_JSON,
    RESULT_CSV,
    ExitCode,
    Manifest,
    hash_files,
    read_manifest,
    write_manifest,
)
from trainer.kit.event_sink import EventSink

CHECKPOINT_EVERY = 2
WEIGHTS = "adapter_model.safetensors"


def chain(job_id: str, steps: int, *, state: str = "", first: int = 1) -> str:
    """Return the state after the steps from `first` to `steps`."""
    for step in range(first, steps + 1):
        state = hashlib.sha256(f"{state} {job_id} {step}".encode()).hexdigest()
    return state


class Program:
    """One run."""

    def __init__(self, record: Path, step_seconds: float, workdir: Path) -> None:
        self.record, self.step_seconds, self.workdir = record, step_seconds, workdir
        self.spec = JobSpec.model_validate_json((workdir / "job.json").read_bytes())
        asked = self.spec.method.hyperparameters
        self.steps = asked.n_epochs if isinstance(asked.n_epochs, int) else 3
        if isinstance(asked.gradient_accumulation_steps, int):
            self.step_seconds *= asked.gradient_accumulation_steps
        self.attempt = int(workdir.name.rpartition("-")[2])
        self.sink = EventSink(workdir)
        self.state, self.first, self.stopped = "", 1, False

    def run(self) -> int:
        """Train from the checkpoint, or from the beginning."""
        signal.signal(signal.SIGTERM, self._on_signal)
        ledger.note(self.record, self.spec.job_id, self.attempt, 0)
        assert (self.workdir / self.spec.training.path).read_bytes()
        if self.spec.resume:
            self._load()
        self.sink.emit(events.PhaseEvent(phase="training", message=f"Training for {self.steps} steps"))
        for step in range(self.first, self.steps + 1):
            self._step(step)
            if self.stopped or (step % CHECKPOINT_EVERY == 0 and step < self.steps):
                self._checkpoint(step)
            if self.stopped and step < self.steps:
                return ExitCode.STOPPED
        self._finish()
        return ExitCode.DONE

    def _load(self) -> None:
        folder = self.workdir / "checkpoint"
        assert read_manifest(folder).verify_files(folder) == []
        done, self.state = (folder / "state.txt").read_text().split()
        self.first = int(done) + 1

    def _step(self, step: int) -> None:
        time.sleep(self.step_seconds)
        self.state = chain(self.spec.job_id, step, state=self.state, first=step)
        ledger.note(self.record, self.spec.job_id, self.attempt, step)
        self.sink.emit(
            events.StepEvent(
                step=step,
                total_steps=self.steps,
                epoch=step / self.steps,
                train_loss=1 / step,
                metrics={"attempt": self.attempt},
                learning_rate=1e-4,
                tokens_seen=step * 10,
                tokens_per_second=100.0,
                seconds_left=(self.steps - step) * self.step_seconds,
            )
        )

    def _checkpoint(self, step: int) -> None:
        folder = self.workdir / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.txt").write_text(f"{step} {self.state}")
        (folder / "adapter_config.json").write_text("{}")
        (folder / WEIGHTS).write_text(self.state)
        write_manifest(folder, Manifest(files=hash_files(folder, folder.iterdir())))
        self.sink.emit(
            events.CheckpointEvent(step=step, path=f"checkpoints/step-{step}", metrics={"train_loss": 1 / step})
        )

    def _finish(self) -> None:
        adapter = self.workdir / ADAPTER_FOLDER
        adapter.mkdir(parents=True)
        (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "tiny"}')
        (adapter / WEIGHTS).write_text(self.state)
        write_manifest(adapter, Manifest(files=hash_files(adapter, adapter.glob("*"))))
        (self.workdir / REPORT_JSON).write_text('{"评": 1}')
        (self.workdir / REPORT_HTML).write_text("<!doctype html>")
        (self.workdir / RESULT_CSV).write_text("step,train_loss\n1,1.2\n")
        files = [path for path in (self.workdir / "output").rglob("*") if path.is_file()]
        write_manifest(self.workdir, Manifest(files=hash_files(self.workdir, files), trained_tokens=self.steps * 10))

    def _on_signal(self, *_: object) -> None:
        self.stopped = True


if __name__ == "__main__":
    sys.exit(Program(Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])).run())
