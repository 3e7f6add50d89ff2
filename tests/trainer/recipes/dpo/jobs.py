"""Preference rows and recipes on them, for the tests of preference methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.trainer.workdirs import jsonl, lay_out
from trainer.contract.job import JobSpec
from trainer.engine.recipe import Recipe
from trainer.kit.event_sink import EventSink
from trainer.kit.job_context import JobContext
from trainer.kit.stop import StopFlag
from trainer.recipes import recipe_for


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def preference(question: str, better: str, worse: str) -> dict[str, Any]:
    return {
        "input": {"messages": [message("user", question)]},
        "preferred_output": [message("assistant", better)],
        "non_preferred_output": [message("assistant", worse)],
    }


def preferences(count: int = 12) -> list[dict[str, Any]]:
    rows = [preference(f"Say {number}.", f"{number}, gladly.", "No." * (1 + number % 3)) for number in range(count)]
    rows[1] = preference("你好吗?", "我很好, 谢谢!", "不好。")
    return rows


def job(workdir: Path, base: Path, kind: str, rows: list[dict[str, Any]], **more: Any) -> Path:
    """Lay out a job of a method; `hyperparameters`, `held_out` and whatever else job.json has."""
    hyperparameters = {"dtype": "float32", "lora": {"rank": 4, "alpha": 8}, **more.pop("hyperparameters", {})}
    held_out = more.pop("held_out", None)
    method = {"type": kind, kind: {"hyperparameters": hyperparameters}}
    validation = jsonl(held_out) if held_out else None
    return lay_out(workdir, base, jsonl(rows), validation, method=method, **more)


def opened(workdir: Path) -> Recipe:
    """Return the job's recipe after reading and loading."""
    spec = JobSpec.model_validate_json((workdir / "job.json").read_bytes())
    recipe = recipe_for(JobContext(workdir, spec, EventSink(workdir), StopFlag(), warn=lambda _: None))
    recipe.data.read_data()
    recipe.prepare_model()
    return recipe
