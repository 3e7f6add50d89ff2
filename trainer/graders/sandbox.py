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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from trainer.graders.base import Failure

_JAIL = Path(__file__).with_name("jail.py")
_MOST_ANSWER = 64 << 10
_PASSED_ON = ("LD_LIBRARY_PATH",)
"""What the interpreter itself may need to start; the grader does not see it."""

_SAME_ORDER = {"PYTHONHASHSEED": "0"}
"""Sets come in the same order each time: a reward that was reckoned once more is the same to the last bit."""
CALLS_A_PROCESS = 64


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


def run_python_on_all(
    source: str, calls: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], *, limits: Limits = LIMITS
) -> list[float | Failure]:
    """Return what the source's `grade` returns for each (sample, item), or why not, with few processes.

    The calls in a process are made one after the other, with the same random numbers and the same order of sets each
    time, within the limits of one run. Where that is not enough, each gets a process of its own.
    """
    found: list[float | Failure] = []
    for start in range(0, len(calls), CALLS_A_PROCESS):
        part = calls[start : start + CALLS_A_PROCESS]
        found += _together(source, part, limits) or [_alone(source, call, limits) for call in part]
    return found


def _together(
    source: str, calls: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], limits: Limits
) -> list[float | Failure] | None:
    pairs = [{"sample": dict(sample), "item": dict(item)} for sample, item in calls]
    try:
        told: Any = _in_jail({"source": source, "calls": pairs}, limits, most=_MOST_ANSWER * len(calls)).get("answers")
    except Failure as failure:
        return [failure for _ in calls] if failure.kind == "sandbox" else None
    if not isinstance(told, list) or len(cast("list[Any]", told)) != len(calls):
        return None
    return [_reward_in(cast("dict[str, Any]", one)) for one in cast("list[Any]", told)]


def _alone(source: str, call: tuple[Mapping[str, Any], Mapping[str, Any]], limits: Limits) -> float | Failure:
    try:
        return run_python(source, *call, limits=limits)
    except Failure as failure:
        return failure


def _reward_in(told: Mapping[str, Any]) -> float | Failure:
    reward = told.get("reward")
    if isinstance(reward, (int, float)) and not isinstance(reward, bool) and math.isfinite(reward):
        return float(reward)
    return Failure("python_grader_runtime_error", str(told.get("error", "it gave no number")))


def check_python(source: str, *, limits: Limits = LIMITS) -> None:
    """Raise Failure where a source cannot be compiled or has no function `grade`; nothing of it is run."""
    _in_jail({"source": source}, limits)


def _in_jail(request: dict[str, Any], limits: Limits, *, most: int = _MOST_ANSWER) -> dict[str, Any]:
    told = {"cpu_seconds": limits.cpu_seconds, "memory_bytes": limits.memory_bytes, "parent": os.getpid()}
    deadline = time.monotonic() + limits.wall_seconds
    with tempfile.TemporaryFile() as given:
        given.write(json.dumps(request | told).encode())
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-S", "-B", str(_JAIL)],
            cwd="/",
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _SAME_ORDER,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    with process:
        try:
            data = _read(process, deadline, most)
        finally:
            process.kill()
    return _answer(data, process.returncode, limits)


def _read(process: subprocess.Popen[bytes], deadline: float, most: int) -> bytes | None:
    """Return all that the process says; None where it is not done in time. Raises Failure where it says too much."""
    assert process.stdout is not None
    data = b""
    while len(data) <= most:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        more = os.read(process.stdout.fileno(), 1 << 16)
        if not more:
            process.wait(max(0.1, deadline - time.monotonic()))
            return data
        data += more
    raise Failure("python_grader_runtime_error", f"it wrote more than {most} bytes to its answer")


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
