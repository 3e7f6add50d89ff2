"""Runs the source of `python` graders, each in a process of its own that reaches nothing; see `jail.py`.

Whether Python graders are run at all is the operator's decision (`BURNISH_PYTHON_GRADERS`), not this module's.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from trainer.graders.base import Failure

_JAIL = Path(__file__).with_name("jail.py")
_MOST_ANSWER = 64 << 10
_PASSED_ON = ("LD_LIBRARY_PATH",)
"""What the interpreter itself may need to start; the grader does not see it."""


@dataclass(frozen=True)
class Limits:
    """What one run may take."""

    cpu_seconds: int = 10
    wall_seconds: float = 20.0
    memory_bytes: int = 512 << 20


LIMITS = Limits()


def run_python(source: str, sample: Mapping[str, Any], item: Mapping[str, Any], *, limits: Limits = LIMITS) -> float:
    """Return what the source's `grade(sample, item)` returns, a finite number.

    Raises Failure: `python_grader_runtime_error` for what the source does, `unresponsive_reward_error` where it takes
    too long, `python_grader_server_error` where this machine cannot run it safely.
    """
    reward = _in_jail({"source": source, "sample": dict(sample), "item": dict(item)}, limits).get("reward")
    if isinstance(reward, bool) or not isinstance(reward, (int, float)) or not math.isfinite(reward):
        raise Failure("python_grader_runtime_error", "it gave no number")
    return float(reward)


def check_python(source: str, *, limits: Limits = LIMITS) -> None:
    """Raise Failure where a source cannot be compiled or has no function `grade`; nothing of it is run."""
    _in_jail({"source": source}, limits)


def _in_jail(request: dict[str, Any], limits: Limits) -> dict[str, Any]:
    told = {"cpu_seconds": limits.cpu_seconds, "memory_bytes": limits.memory_bytes, "parent": os.getpid()}
    deadline = time.monotonic() + limits.wall_seconds
    with tempfile.TemporaryFile() as given:
        given.write(json.dumps(request | told).encode())
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(_JAIL)],
            cwd="/",
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    with process:
        try:
            data = _read(process, deadline)
        finally:
            process.kill()
    return _answer(data, process.returncode, limits)


def _read(process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """Return all that the process says; None where it is not done in time. Raises Failure where it says too much."""
    assert process.stdout is not None
    data = b""
    while len(data) <= _MOST_ANSWER:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        more = os.read(process.stdout.fileno(), 1 << 16)
        if not more:
            process.wait(max(0.1, deadline - time.monotonic()))
            return data
        data += more
    raise Failure("python_grader_runtime_error", f"it wrote more than {_MOST_ANSWER} bytes to its answer")


def _answer(data: bytes | None, status: int, limits: Limits) -> dict[str, Any]:
    if data is None:
        raise Failure("unresponsive_reward_error", f"it was not done after {limits.wall_seconds:g} seconds")
    if status == -signal.SIGXCPU:
        raise Failure("unresponsive_reward_error", f"it used more than {limits.cpu_seconds} seconds of a processor")
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise Failure("python_grader_runtime_error", f"it ended without an answer (status {status})")
    told = cast("dict[str, Any]", answer)
    if "error" in told:
        if told.get("kind") == "sandbox":
            raise Failure("python_grader_server_error", str(told["error"]), kind="sandbox")
        raise Failure("python_grader_runtime_error", str(told["error"]))
    return told
