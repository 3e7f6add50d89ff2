"""Work folders of pre-training jobs: text files, with a base or without."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from trainer.contract.events import EVENT, FILE_NAME, ErrorEvent
from trainer.contract.result import ExitCode
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

SMALL: dict[str, Any] = {"layers": 2, "heads": 2, "width": 32, "context": 32, "dropout": 0.0}
TEXT = "".join(f"The {number}th line says 天气很好 and {number * 7}.\n" for number in range(120))


def lay_out(
    workdir: Path,
    hyperparameters: dict[str, Any],
    *,
    training: bytes = TEXT.encode(),
    validation: bytes | None = None,
    suffix: str = ".txt",
    base: Path | None = None,
    **spec: Any,
) -> Path:
    """Write job.json and data/, link base/ where there is one, and return the folder."""
    (workdir / "data").mkdir(parents=True)
    if base is not None:
        (workdir / "base").symlink_to(base)
    job: dict[str, Any] = {
        "job_id": "ftjob-text",
        "model_name": "ft:new:org:书:text",
        "base": {"id": "tiny-base" if base else "from-scratch", "fingerprint": "f" * 64 if base else ""},
        "method": {"type": "pretraining", "pretraining": {"hyperparameters": hyperparameters}},
        "training": _put(workdir, f"train{suffix}", training),
        "seed": 7,
        "sample_count": 2,
        **spec,
    }
    if validation is not None:
        job["validation"] = _put(workdir, f"valid{suffix}", validation)
    (workdir / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return workdir


def train(workdir: Path) -> dict[str, Any]:
    """Run the job to its end and return its report."""
    code = run_training_job(workdir, StopFlag())
    assert code == ExitCode.DONE, (workdir / FILE_NAME).read_text().splitlines()[-1]
    return json.loads((workdir / "output/report.json").read_bytes())


def refusal(workdir: Path) -> ErrorEvent:
    """Run a job that has to be refused for its input and return its error."""
    assert run_training_job(workdir, StopFlag()) == ExitCode.BAD_INPUT
    error = EVENT.validate_json((workdir / FILE_NAME).read_bytes().splitlines()[-1])
    assert isinstance(error, ErrorEvent)
    return error


def documents(texts: list[str]) -> bytes:
    """Return the JSONL form of documents."""
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


def _put(workdir: Path, name: str, content: bytes) -> dict[str, str]:
    (workdir / "data" / name).write_bytes(content)
    return {"path": f"data/{name}", "filename": name, "sha256": hashlib.sha256(content).hexdigest()}
