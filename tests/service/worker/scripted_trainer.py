"""A trainer that follows a script instead of training: real process, files and exit codes, without torch.

`scripted_trainer.py MODE WORKDIR`. Steps that lie before the checkpoint are not run again, as in the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from trainer.contract import events
from trainer.contract.job import FROM_SCRATCH, JobSpec
from trainer.contract.result import (
    ADAPTER_FOLDER,
    MODEL_FOLDER,
    REPORT_HTML,
    REPORT_JSON,
    RESULT_CSV,
    ExitCode,
    Manifest,
    hash_files,
    write_manifest,
)
from trainer.kit.event_sink import EventSink

STEPS = 4
WARNING = "第 3 行被截断, 超过最大长度"


class Script:
    def __init__(self, mode: str, workdir: Path) -> None:
        self.mode = mode
        self.workdir = workdir
        self.sink = EventSink(workdir)
        self.spec = JobSpec.model_validate_json((workdir / "job.json").read_bytes())
        self.stopped = False
        self.first = 1
        if self.spec.resume:
            self.first = 1 + int((workdir / "checkpoint" / "step.txt").read_text())

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self._on_signal)
        assert (self.workdir / "base" / "config.json").is_file() is (self.spec.base.id != FROM_SCRATCH)
        for name, wanted in (("start", self.spec.start), ("reward", self.spec.reward)):
            assert (self.workdir / name / "adapter_model.safetensors").is_file() is (wanted is not None)
        assert (self.workdir / self.spec.training.path).is_file()
        self.sink.emit(events.PhaseEvent(phase="training", message=f"Training for {STEPS} steps"))
        self.sink.emit(
            events.ConfiguredEvent(hyperparameters={"n_epochs": 3}, counts={"rows": 2}, message="批量大小为 1")
        )
        self.sink.emit(events.WarningEvent(message=WARNING))
        for step in range(self.first, STEPS + 1):
            self.step(step)
            if self.mode == "many_checkpoints":
                self.checkpoint(step)
                while (self.workdir / "checkpoints" / f"step-{step}" / "step.txt").stat().st_nlink < 2:
                    time.sleep(0.01)  # until the worker has taken note of it
                shutil.rmtree(self.workdir / "checkpoints" / f"step-{step - 2}", ignore_errors=True)
            elif step == max(2, self.first) and self.mode != "succeed":
                if self.mode not in ("killed", "silent_fault"):
                    self.checkpoint(step)
                if (status := self.trouble()) is not None:
                    return status
        return self.finish()

    def step(self, step: int) -> None:
        self.sink.emit(
            events.StepEvent(
                step=step,
                total_steps=STEPS,
                epoch=step / STEPS,
                train_loss=1.234,
                train_mean_token_accuracy=0.5,
                learning_rate=1e-4,
                tokens_seen=step * 10,
                tokens_per_second=100.0,
                seconds_left=7.0,
            )
        )

    def checkpoint(self, step: int) -> None:
        folder = self.workdir / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "step.txt").write_text(str(step))
        (folder / "optimizer.pt").write_bytes(b"what only resuming needs")
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_text(f"{self.spec.job_id} at step {step}")
        write_manifest(folder, Manifest(files=hash_files(folder, folder.iterdir())))
        metrics = {"train_loss": 1.2}
        self.sink.emit(events.CheckpointEvent(step=step, path=f"checkpoints/step-{step}", metrics=metrics))

    def trouble(self) -> int | None:
        match self.mode:
            case "bad_input":
                self.sink.emit(events.ErrorEvent(code="bad_rows", message="第 2 行不是对话", param="training_file"))
                return ExitCode.BAD_INPUT
            case "fault":
                self.sink.emit(events.ErrorEvent(code="trainer_fault", message="It broke"))
                return ExitCode.FAULT
            case "silent_fault":
                print("the last words on standard error", file=sys.stderr)
                return ExitCode.FAULT
            case "killed" | "killed_later":
                os.kill(os.getpid(), signal.SIGKILL)
            case "wait" | "stubborn":
                while not self.stopped:
                    time.sleep(0.02)
                self.checkpoint(3)
                return ExitCode.STOPPED
        return None

    def finish(self) -> int:
        whole = self.spec.method.hyperparameters.result_kind == "model"
        adapter = self.workdir / (MODEL_FOLDER if whole else ADAPTER_FOLDER)
        adapter.mkdir(parents=True)
        if whole:
            (adapter / "config.json").write_text("{}")
        else:
            (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "tiny"}')
        weights = adapter / ("model.safetensors" if whole else "adapter_model.safetensors")
        weights.write_bytes(bytes(range(256)) * 64)
        (adapter / "tokenizer.json").write_text('{"词": 1}')
        (adapter / "README.md").write_text("# 模型卡")
        write_manifest(adapter, Manifest(files=hash_files(adapter, adapter.glob("*"))))
        for score in ("base", "tuned"):
            self.sink.emit(
                events.EvaluationEvent(
                    model=score,
                    step=STEPS,
                    total_steps=STEPS,
                    full=score == "tuned",
                    valid_loss=2.0,
                    valid_mean_token_accuracy=0.25,
                    tokens=12,
                )
            )
        (self.workdir / REPORT_JSON).write_text(json.dumps(dict(os.environ)))
        (self.workdir / REPORT_HTML).write_text("<!doctype html>")
        (self.workdir / RESULT_CSV).write_text("step,train_loss\n1,1.2\n")
        files = [path for path in (self.workdir / "output").rglob("*") if path.is_file()]
        write_manifest(self.workdir, Manifest(files=hash_files(self.workdir, files), trained_tokens=40))
        if self.mode == "damaged":
            weights.write_bytes(b"other bytes")
        return ExitCode.DONE

    def _on_signal(self, *_: object) -> None:
        self.stopped = self.mode == "wait"


if __name__ == "__main__":
    sys.exit(Script(sys.argv[1], Path(sys.argv[2])).run())
