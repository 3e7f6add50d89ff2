"""Laying out work folders as the worker does, and running the trainer in them: here, or as a child process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.fixtures.preloaded import start_preloaded
from trainer.contract.events import EVENT, FILE_NAME, Event
from trainer.contract.result import ExitCode
from trainer.kit.stop import StopFlag

REPOSITORY = Path(__file__).parents[2]


def chat(question: str, answer: str, **row: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **row}


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def training_rows(count: int = 24) -> list[dict[str, Any]]:
    rows = [chat(f"Say {number}.", f"{number}!" * (1 + number % 4)) for number in range(count)]
    rows[1] = chat("天气怎么样?", "今天天气很好。")
    rows[2] = chat("<script>alert(1)</script>", "<b>&</b>")
    return rows


def lay_out(
    workdir: Path,
    base: Path,
    training: bytes,
    validation: bytes | None = None,
    hyperparameters: dict[str, Any] | None = None,
    **spec: Any,
) -> Path:
    """Write job.json, data/ and the link base/, and return the folder."""
    (workdir / "data").mkdir(parents=True)
    (workdir / "base").symlink_to(base)
    job: dict[str, Any] = {
        "job_id": "ftjob-test",
        "model_name": "ft:tiny:<org>:测试:test",
        "base": {"id": "tiny-base", "fingerprint": "f" * 64},
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters or {}}},
        "training": _put(workdir, "training.jsonl", training),
        "seed": 7,
        "sample_count": 3,
        **spec,
    }
    if validation is not None:
        job["validation"] = _put(workdir, "validation.jsonl", validation)
    (workdir / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return workdir


def _put(workdir: Path, name: str, content: bytes) -> dict[str, str]:
    (workdir / "data" / name).write_bytes(content)
    return {"path": f"data/{name}", "filename": name, "sha256": hashlib.sha256(content).hexdigest()}


def environment() -> dict[str, str]:
    """The clean environment that the worker gives."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(REPOSITORY),
    }


def start(workdir: Path) -> subprocess.Popen[bytes]:
    command = [*start_preloaded().command("trainer"), str(workdir)]
    return subprocess.Popen(
        command, cwd=workdir, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def run(workdir: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the trainer to its end."""
    child = start(workdir)
    out, err = child.communicate(timeout=200)
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


def run_here(workdir: Path) -> ExitCode:
    """Run the trainer in this process, which imports torch once for all tests."""
    from trainer.run import run_training_job as run_in_process

    return run_in_process(workdir, StopFlag())


def events_of(workdir: Path) -> list[Event]:
    lines = (workdir / FILE_NAME).read_bytes().splitlines()
    return [EVENT.validate_json(line) for line in lines]
