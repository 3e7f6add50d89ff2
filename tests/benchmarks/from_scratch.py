"""nanoGPT's CPU recipe as a pre-training job: a model of Shakespeare's characters from scratch.

4 layers, 4 heads, width 128, context 64, 12 windows a step, 2000 steps, no dropout; the first 90% of the file is
trained on, the rest held out. nanoGPT's README reports a validation loss of 1.88 for this recipe.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import REPOSITORY, Grid, Outcome, at_least, output_options, show
from trainer.contract.events import EVENT, FILE_NAME, EvaluationEvent

TARGET_LOSS = 1.90
RECIPE: dict[str, Any] = {
    "architecture": {"layers": 4, "heads": 4, "width": 128, "context": 64, "dropout": 0.0},
    "tokenizer": "char",
    "batch_size": 12,
    "max_length": 64,
    "max_steps": 2000,
    "learning_rate": 1e-3,
    "min_learning_rate_ratio": 0.1,
    "warmup_ratio": 0.05,
    "beta2": 0.99,
    "weight_decay": 0.1,
    "eval_steps": 250,
    "checkpoint_steps": 1000,
}


def text_file() -> Path:
    """Return the place of tinyshakespeare, in `BURNISH_TEST_DATA` or in the folder beside the repository."""
    folder = os.environ.get("BURNISH_TEST_DATA")
    return (Path(folder) if folder else REPOSITORY.parent / "shared" / "data") / "tinyshakespeare.txt"


def lay_out(workdir: Path, text: str, seed: int, steps: int) -> Path:
    """Write the job: the first 90% of the characters to train on, the rest held out."""
    (workdir / "data").mkdir(parents=True)
    cut = len(text) * 9 // 10
    job = {
        "job_id": "ftjob-from-scratch",
        "model_name": "ft:from-scratch:proof::shakespeare",
        "base": {"id": "from-scratch", "fingerprint": ""},
        "method": {
            "type": "pretraining",
            "pretraining": {"hyperparameters": {**RECIPE, "max_steps": steps}},
        },
        "training": _put(workdir, "train.txt", text[:cut]),
        "validation": _put(workdir, "valid.txt", text[cut:]),
        "seed": seed,
        "sample_count": 2,
    }
    (workdir / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return workdir


def run_job(workdir: Path) -> dict[str, Any]:
    """Run the trainer as the worker does, in a process of its own, and return its report. Raises SystemExit.

    It has one thread where nothing else is said: a model this small gains nothing from more.
    """
    command = [sys.executable, "-m", "trainer", str(workdir)]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "HF_HUB_OFFLINE": "1"}
    child = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=environment)
    if child.returncode:
        raise SystemExit(f"the job failed with exit code {child.returncode}:\n{child.stderr[-3000:]}")
    return json.loads((workdir / "output" / "report.json").read_bytes())


def evaluations(workdir: Path) -> list[EvaluationEvent]:
    """Return the job's measurements in their order."""
    events = (EVENT.validate_json(line) for line in (workdir / FILE_NAME).read_bytes().splitlines())
    return [event for event in events if isinstance(event, EvaluationEvent)]


def options_parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.from_scratch", description=__doc__)
    parser.add_argument("--seeds", type=at_least(1), default=1, help="how many seeds are trained (1)")
    parser.add_argument("--steps", type=at_least(20), default=2000, help="optimizer steps (2000)")
    output_options(parser)
    return parser


def benchmark(options: argparse.Namespace) -> Outcome:
    """Train from each seed and compare with the target. Raises SystemExit where the text is not there."""
    source = text_file()
    if not source.is_file():
        raise SystemExit(f"{source.name} is not there: put it beside the repository or set BURNISH_TEST_DATA.")
    text = source.read_bytes().decode()
    runs = [_one(text, seed, options.steps) for seed in range(1, options.seeds + 1)]
    return Outcome((_grid(runs, options.steps), _curve(runs)), _notes(runs, options.steps), {"runs": runs})


def _one(text: str, seed: int, steps: int) -> dict[str, Any]:
    print(f"seed {seed}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        workdir = lay_out(Path(folder) / "job", text, seed, steps)
        begun = time.perf_counter()
        report = run_job(workdir)
        found = [(event.step, event.full, event.valid_loss) for event in evaluations(workdir)]
    return {
        "seed": seed,
        "seconds": time.perf_counter() - begun,
        "training_seconds": report["seconds"]["training"],
        "tokens_per_second": report["tokens_per_second"],
        "counts": report["counts"],
        "threads": report["environment"]["threads"],
        "loss": report["comparison"][0],
        "accuracy": report["comparison"][1],
        "evaluations": found,
        "samples": report["samples"],
    }


def _grid(runs: list[dict[str, Any]], steps: int) -> Grid:
    rows = tuple(
        (
            str(run["seed"]),
            f"{run['loss']['base']['value']:.3f}",
            f"**{run['loss']['tuned']['value']:.4f}** ({_interval(run['loss']['tuned'])})",
            f"{run['accuracy']['tuned']['value']:.1%}",
            f"{run['training_seconds']:.0f}",
            f"{run['tokens_per_second']:,.0f}",
        )
        for run in runs
    )
    title = f"Loss in nats a character over all of the held-out 10%, after {steps} steps of 12 windows of 64 characters"
    columns = ("seed", "random model", "trained (95% interval)", "characters right", "training, s", "characters/s")
    return Grid(title, columns, rows)


def _curve(runs: list[dict[str, Any]]) -> Grid:
    rows = tuple((str(step), f"{loss:.3f}", "all" if full else "a part") for step, full, loss in runs[0]["evaluations"])
    return Grid(f"The held-out loss on the way, seed {runs[0]['seed']}", ("step", "loss", "measured on"), rows)


def _notes(runs: list[dict[str, Any]], steps: int) -> tuple[str, ...]:
    worst = max(run["loss"]["tuned"]["value"] for run in runs)
    counts = runs[0]["counts"]
    verdict = "reached" if worst <= TARGET_LOSS else "NOT reached"
    full = "" if steps == RECIPE["max_steps"] else f" (with {steps} steps instead of {RECIPE['max_steps']})"
    return (
        f"Target: at most {TARGET_LOSS:.2f}{full}: {verdict}. nanoGPT's README says 1.88.",
        f"{counts['total_parameters']:,} parameters, {runs[0]['threads']} thread(s).",
        "Batch, steps, learning rate, schedule, betas and weight decay are nanoGPT's; the layers are Llama's (rotary "
        "positions, RMSNorm, SwiGLU) instead of GPT-2's, and the windows are the file cut once, shuffled each epoch, "
        "instead of drawn with replacement.",
        "The loss is over every held-out character once, the end of the file included, each window beginning with an "
        "empty context.",
    )


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['low']:.4f} to {estimate['high']:.4f}"


def _put(workdir: Path, name: str, text: str) -> dict[str, str]:
    content = text.encode()
    (workdir / "data" / name).write_bytes(content)
    return {"path": f"data/{name}", "filename": name, "sha256": hashlib.sha256(content).hexdigest()}


if __name__ == "__main__":
    chosen = options_parser().parse_args()
    show(benchmark(chosen), chosen)
