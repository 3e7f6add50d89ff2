"""The names of jobs' models and of their checkpoints: `ft:{base}:{organization}:{suffix}:{id}[:ckpt-step-{N}]`."""

from __future__ import annotations

import re

_CHECKPOINT = re.compile(r"(?P<model>ft:.+):ckpt-step-(?P<step>\d{1,9})")


def compose_model_name(base: str, *, organization: str, suffix: str | None, job_id: str) -> str:
    """Return the name of a new job's model. The job's row keeps it: nothing else may compose it again."""
    root = base.split(":")[1] if base.startswith("ft:") else base
    return f"ft:{root}:{organization}:{suffix or ''}:{job_id[-8:]}"


def compose_checkpoint_name(model_name: str, step: int) -> str:
    """Return the name of a model's checkpoint."""
    return f"{model_name}:ckpt-step-{step}"


def split_checkpoint_name(name: str) -> tuple[str, int | None]:
    """Return the model's name and the checkpoint's step; None for the step if `name` names no checkpoint."""
    match = _CHECKPOINT.fullmatch(name)
    return (match["model"], int(match["step"])) if match else (name, None)
