"""The whole road on a running service: text → chats → reward model → PPO, and chats → DPO.

    python -m examples.whole_road.road [--model BASE | --from-scratch] [--output FOLDER]

All five jobs are created at once. Each names the job that it starts from, waits for it in the queue, and leaves one
adapter for the base. The service's address and key come from BURNISH_BASE_URL and BURNISH_API_KEY, or from the
`client.json` of a service on this machine. It ends with 0 only if every job succeeded.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from burnish import Burnish, BurnishError, Job
from burnish.progress import JobProgress
from examples.whole_road.data import write_files

# Enough to see every stage work in a few minutes without a GPU; not enough to make a good shop assistant.
_LORA = {"rank": 8, "alpha": 16}
_SHAPE = {"layers": 2, "heads": 4, "width": 64, "context": 256}
_console = Console()


@dataclass(frozen=True)
class Stage:
    """One job of the road: what it trains on, by which method, and the earlier stage that it starts from."""

    name: str
    method: str
    rows: str
    after: str | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict[str, Any])


def stages(*, from_scratch: bool) -> tuple[Stage, ...]:
    """Return the road. A new model is trained whole; a base of the catalog is adapted."""
    tokens = {"max_length": 128}
    text = {"architecture": _SHAPE, "tokenizer": "byte", "n_epochs": 20} if from_scratch else {"lora": _LORA}
    answers = {"max_new_tokens": 16, "rollout_prompts": 12, "iterations": 8, "missing_eos_penalty": 1.0}
    return (
        Stage("text", "pretraining", "text", None, {"batch_size": 2, **tokens, **text}),
        Stage("chats", "supervised", "chats", "text", {"n_epochs": 2, "batch_size": 4}),
        Stage("reward", "reward", "rankings", "chats", {"n_epochs": 2, "batch_size": 4}),
        Stage("ppo", "ppo", "prompts", "chats", answers),
        Stage("dpo", "dpo", "preferences", "chats", {"n_epochs": 1, "batch_size": 4, "beta": 0.1}),
    )


def main() -> int:
    """Walk the road and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.whole_road.road", description=__doc__)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--model", default="smollm2-135m-instruct", help="a base of the service's catalog")
    chosen.add_argument("--from-scratch", action="store_true", help="make a small new model first")
    parser.add_argument("--output", type=Path, default=Path("whole-road"), help="for data, results and reports")
    given = parser.parse_args()
    try:
        with Burnish() as client:
            jobs = order(client, given.model, given.output / "data", from_scratch=given.from_scratch)
            for name, job in jobs.items():
                jobs[name] = follow(client, name, job, given.output)
            _console.print(table(client, jobs))
    except (BurnishError, TimeoutError, OSError) as error:
        _console.print(Text(f"The road ends here: {error}", style="bold red"))
        return 1
    return 0


def order(client: Burnish, model: str, folder: Path, *, from_scratch: bool) -> dict[str, Job]:
    """Upload the rows and order all jobs at once; return them by their stages' names."""
    files = {
        kind: [client.files.create(file=path, purpose="fine-tune").id for path in paths]
        for kind, paths in write_files(folder).items()
    }
    jobs: dict[str, Job] = {}
    for stage in stages(from_scratch=from_scratch):
        hyperparameters = dict(stage.hyperparameters)
        if stage.method == "ppo":
            hyperparameters["reward"] = {"model": jobs["reward"].id}
        start = jobs[stage.after].id if stage.after else ("from-scratch" if from_scratch else model)
        training, validation = files[stage.rows]
        jobs[stage.name] = job = client.jobs.create(
            model=start,
            training_file=training,
            validation_file=validation,
            method=stage.method,
            hyperparameters=hyperparameters,
            suffix=f"road-{stage.name}",
            seed=7,
        )
        waits = f", waits for {' and '.join(job.waits_for)}" if job.waits_for else ""
        _console.print(f"{stage.name}: {job.id} by {stage.method}{waits}", highlight=False)
    return jobs


def follow(client: Burnish, name: str, job: Job, output: Path) -> Job:
    """Wait for a job, and fetch its result and report. Raises JobFailed."""
    _console.rule(f"{name}: {job.id}")
    with JobProgress(console=_console) as progress:
        job = client.jobs.wait(job.id, on_event=progress)
    whole = job.base_model == "from-scratch"
    fetch = client.jobs.download_model if whole else client.jobs.download_adapter
    fetch(job.id, output / name, extract=True)
    (output / f"{name}.html").write_text(client.jobs.report_html(job.id), encoding="utf-8")
    return job


def table(client: Burnish, jobs: dict[str, Job]) -> Table:
    """Return what came of every stage: its own first measure on held-out rows, with 95% intervals."""
    made = Table(title="The whole road", expand=True)
    for column in ("stage", "model", "starts from", "measure", "before", "after"):
        made.add_column(column, overflow="fold")
    for name, job in jobs.items():
        headline = client.jobs.report(job.id)["comparison"][0]
        parents = " → ".join(entry["method"] for entry in job.lineage) or str(job.base_model)
        numbers = [_interval(headline[which]) for which in ("base", "tuned")]
        made.add_row(name, str(job.fine_tuned_model), parents, headline["label"], *numbers)
    return made


def _interval(estimate: dict[str, float | None]) -> str:
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return f"{value:.3f}{interval}"


if __name__ == "__main__":
    sys.exit(main())
