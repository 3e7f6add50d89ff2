"""Families by methods: a tiny random model of each family, trained for a step or two by each method in a fork."""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.fixtures.tiny_families import make_tiny_family
from tests.trainer.recipes.dpo.jobs import preferences
from tests.trainer.recipes.reward.jobs import rankings
from tests.trainer.workdirs import events_of, jsonl, lay_out, training_rows
from trainer.contract.events import ErrorEvent
from trainer.contract.result import ADAPTER_FOLDER, REPORT_JSON, ExitCode
from trainer.engine.models.family_table import FAMILIES
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

METHODS = ("supervised", "dpo", "reward", "ppo")
TRAINS = "trains"
_COMMON: dict[str, Any] = {"n_epochs": 1, "batch_size": 2, "dtype": "float32", "lora": {"rank": 2}}
_PROMPTS = [
    {"input": {"messages": [{"role": "user", "content": text}]}} for text in ("天气怎么样?", "Say 1.", "Say 2!", "Why?")
]
_ROWS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "supervised": (training_rows(4), {}),
    "dpo": (preferences(4), {}),
    "reward": (rankings(3), {}),
    "ppo": (_PROMPTS, {"reward": {"model": "ft:r"}, "iterations": 1, "rollout_prompts": 4, "max_new_tokens": 5}),
}
_BASE = {"id": "tiny-base", "fingerprint": "f" * 64}


# transformers makes no tiny model of these: a package is missing, or a size is fixed.
NOT_TINY = ("gemma3n", "dots3_note")


def families_to_try(*, besides: Sequence[str] = ()) -> list[str]:
    """Return the table's families that can be trained, without those of `besides`."""
    return [name for name, family in FAMILIES.items() if not family.refused and name not in (*NOT_TINY, *besides)]


@functools.cache
def import_late_parts() -> None:
    """Import once what a job imports on its way, so that no fork has to."""
    for name in ("matplotlib.pyplot", "transformers.trainer", *(f"trainer.recipes.{method}" for method in METHODS)):
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy every page that it looks at


def try_family(kind: str, methods: Sequence[str] = METHODS, **lora: Any) -> dict[str, str]:
    """Return what becomes of each method on a tiny model of the family: `trains`, or the sentence that refuses it."""
    import_late_parts()
    return in_fork(lambda: _try_methods(kind, methods, lora))


def in_fork(work: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return what `work` returns in a fork of this process; a fork that dies has said so under `died`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w", encoding="utf-8") as pipe:
            try:
                found = work()
            except BaseException as error:  # noqa: BLE001 - a fork reports and ends, whatever happened
                traceback.print_exc()
                found = {"failed": f"{type(error).__name__}: {error}"}
            pipe.write(json.dumps(found))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"died": f"status {os.waitstatus_to_exitcode(status)}"}


def _try_methods(kind: str, methods: Sequence[str], lora: dict[str, Any]) -> dict[str, str]:
    folder = Path(tempfile.mkdtemp(prefix="burnish-family-"))
    # Half of so small a job's time, and the same for every family: the report's plots have tests of their own.
    setattr(importlib.import_module("trainer.report.write"), "all_plots", lambda _: [])  # noqa: B010 - in a fork
    try:
        base = make_tiny_family(kind, folder / "base")
        return {method: _try_method(folder, base, method, lora) for method in methods}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _try_method(folder: Path, base: Path, name: str, lora: dict[str, Any]) -> str:
    rows, own = _ROWS[name]
    more: dict[str, Any] = {}
    reward = folder / "reward" / ADAPTER_FOLDER
    if name == "ppo" and reward.is_dir():
        more["reward"] = {"id": "ft:r", "job_id": "ftjob-r", "sha256": "0" * 64, "base": _BASE}
    elif name == "ppo":
        own = {**own, "reward": {"function": "length", "parameters": {"target": 3}}}
    given = {**_COMMON, **own, "lora": {**_COMMON["lora"], **lora}}
    method = {"type": name, name: {"hyperparameters": given}}
    workdir = lay_out(folder / name, base, jsonl(rows), jsonl(rows), method=method, sample_count=1, **more)
    if "reward" in more:
        shutil.copytree(reward, workdir / "reward")
    ended = run_training_job(workdir, StopFlag())
    if ended is not ExitCode.DONE:
        error = events_of(workdir)[-1]
        assert isinstance(error, ErrorEvent)
        return f"{error.code}: {error.message}"
    still = still_matrices(workdir / ADAPTER_FOLDER)
    verification = json.loads((workdir / REPORT_JSON).read_text(encoding="utf-8"))["verification"]
    assert verification["max_abs_difference"] <= verification["tolerance"]
    return f"adapters without effect: {', '.join(still)}" if still else TRAINS


def still_matrices(folder: Path) -> list[str]:
    """Return the B matrices of an adapter that training never moved from zero: nothing reads those layers' adapters."""
    weights = load_file(folder / "adapter_model.safetensors")
    return [name for name, values in weights.items() if "lora_B" in name and not bool(values.any())]
