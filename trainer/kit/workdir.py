"""The work folder of a job: the names of what lies in it, and reading `job.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from trainer.contract.job import JobSpec
from trainer.kit.errors import TrainerError

JOB_NAME = "job.json"
INCOMING_FOLDER = ".incoming"
"""Where checkpoints are written before they are whole."""
CHECKPOINT_FOLDER = "checkpoint"
"""The checkpoint that a resumed job starts from."""
BASE_FOLDER = "base"
START_FOLDER = "start"
REWARD_FOLDER = "reward"
REWARD_BASE_FOLDER = "reward_base"


def read_spec(workdir: Path) -> JobSpec:
    """Read `job.json`. Raises TrainerError (`invalid_job`)."""
    try:
        return JobSpec.model_validate_json((workdir / JOB_NAME).read_bytes())
    except FileNotFoundError as error:
        raise TrainerError("invalid_job", "The work folder has no job.json.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise TrainerError("invalid_job", f"job.json is not a job: {where}: {first['msg']}.", param=where) from error
