"""Two steps of every method on this process's device; a child of `python -m tests.gpu`.

Which device that is, its parent decides by CUDA_VISIBLE_DEVICES. Answers are drawn almost greedily, so that the same
tokens come on both devices but for ties: drawn at random, they would come from two generators.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tests.fixtures.tiny_model import make_tiny_model
from tests.trainer.samples import BESIDE, COMMON, SAMPLES
from tests.trainer.workdirs import events_of, jsonl, lay_out
from trainer.contract.events import ErrorEvent, StepEvent
from trainer.contract.methods import METHODS_BY_TYPE
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

DTYPES = ("float32", "bfloat16")


def draws_answers(kind: str) -> bool:
    """Return whether a method trains on the model's own answers."""
    return METHODS_BY_TYPE[kind].headline == "reward"


def run_two_steps(kind: str, dtype: str, base: Path, workdir: Path, **more: Any) -> dict[str, Any]:
    """Run a job to its end; return its steps' losses, or why it failed."""
    rows, own = SAMPLES[kind]
    drawing = {"temperature": 1e-3} if draws_answers(kind) else {}
    hyperparameters = {**COMMON, **own, **drawing, "dtype": dtype, **more}
    method = {"type": kind, kind: {**BESIDE.get(kind, {}), "hyperparameters": hyperparameters}}
    lay_out(workdir, base, jsonl(rows), jsonl(rows), method=method, sample_count=1)
    began = time.perf_counter()
    code = run_training_job(workdir, StopFlag())
    events = events_of(workdir)
    steps = [event for event in events if isinstance(event, StepEvent)]
    failed = next((event.message for event in events if isinstance(event, ErrorEvent)), "")
    return {
        "code": int(code),
        "error": failed,
        "losses": [step.train_loss for step in steps],
        "gradients": [step.grad_norm for step in steps],
        "seconds": time.perf_counter() - began,
    }


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Run what is asked for: every method in each number format, and 4 bits on a GPU."""
    with tempfile.TemporaryDirectory(prefix="burnish-gpu-") as name:
        folder = Path(name)
        base = make_tiny_model(folder / "base")
        found: dict[str, Any] = {
            f"{kind} {dtype}": run_two_steps(kind, dtype, base, folder / f"{kind}-{dtype}")
            for dtype in given["dtypes"]
            for kind in given["methods"]
        }
        if torch.cuda.is_available():
            found["supervised 4bit"] = run_two_steps(
                "supervised", "bfloat16", base, folder / "4bit", quantization="4bit"
            )
        return found


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
