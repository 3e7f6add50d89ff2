"""Jobs for benchmarks: a work folder as the worker lays it out, the trainer in a fresh process, and what that took."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import REPOSITORY
from trainer.contract.result import ADAPTER_FOLDER

FINGERPRINT = "0" * 64


@dataclass(frozen=True)
class Ran:
    """A finished job: its folder, its report, wall seconds and peak resident memory in MiB."""

    folder: Path
    report: dict[str, Any]
    seconds: float
    peak_mib: float

    @property
    def adapter(self) -> Path:
        """The result."""
        return self.folder / ADAPTER_FOLDER

    def measure(self, name: str) -> dict[str, Any]:
        """Return one measure of the report, before and after with intervals."""
        return next(measure for measure in self.report["comparison"] if measure["name"] == name)


def run_job(
    folder: Path,
    base: Path,
    method: str,
    rows: Sequence[dict[str, Any]],
    *,
    held_out: Sequence[dict[str, Any]] = (),
    start: Path | None = None,
    reward_model: Path | None = None,
    seed: int = 7,
    **hyperparameters: Any,
) -> Ran:
    """Run one job. Raises SystemExit with the end of its errors where it fails."""
    (folder / "data").mkdir(parents=True)
    (folder / "base").symlink_to(base.resolve())
    reference = {"id": base.name, "fingerprint": FINGERPRINT}
    job: dict[str, Any] = {
        "job_id": "benchmark",
        "model_name": f"ft:{base.name}:benchmark::{method}",
        "base": reference,
        "method": {"type": method, method: {"hyperparameters": hyperparameters}},
        "training": _put(folder, "train.jsonl", rows),
        "validation": _put(folder, "validation.jsonl", held_out) if held_out else None,
        "seed": seed,
        "sample_count": 0,
    }
    for name, adapter in (("start", start), ("reward", reward_model)):
        if adapter is not None:
            (folder / name).symlink_to(adapter.resolve())
            job[name] = {"id": f"ft:{name}", "job_id": name, "sha256": ""}
    if reward_model is not None:
        job["reward"]["base"] = reference
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    seconds, peak, errors, code = watched([sys.executable, "-m", "trainer", str(folder)])
    if code:
        raise SystemExit(f"the {method} job failed with exit code {code}:\n{errors[-3000:]}")
    report = json.loads((folder / "output" / "report.json").read_bytes())
    return Ran(folder, report, seconds, peak)


def watched(command: Sequence[str]) -> tuple[float, float, str, int]:
    """Run a program; return wall seconds, its peak resident memory in MiB, its errors and its exit code."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    begun, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        child = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=errors, text=True
        )
        while child.poll() is None:
            peak = max(peak, _high_water(child.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - begun
        errors.seek(0)
        return seconds, peak, errors.read(), child.returncode


def _high_water(pid: int) -> float:
    """Return the kernel's mark of a running process's memory in MiB; what `wait` tells has the parent's in it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _put(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    (folder / "data" / name).write_bytes(content)
    return {"path": f"data/{name}", "filename": name, "sha256": hashlib.sha256(content).hexdigest()}
