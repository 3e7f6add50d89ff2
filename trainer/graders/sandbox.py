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
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from trainer.graders.base import Failure
from trainer.graders.jail import RUNNING, UP

_JAIL = Path(__file__).with_name("jail.py")
_MOST_ANSWER = 64 << 10
_PASSED_ON = ("LD_LIBRARY_PATH",)
"""What the interpreter itself may need to start; the grader does not see it."""

_SAME_ORDER = {"PYTHONHASHSEED": "0"}
"""Sets come in the same order each time: a reward that was computed once more is the same to the last bit."""
CALLS_A_PROCESS = 64
_END_SECONDS = 1.0
"""How long a process may take to end once its pipe is closed: the kernel has freed its memory before."""
_MOST_SAID = 2000
"""Characters of what went wrong, in the jail's own words about 1500 at most."""


@dataclass(frozen=True)
class SandboxLimits:
    """What one run may take."""

    cpu_seconds: int = 10
    wall_seconds: float = 20.0
    memory_bytes: int = 512 << 20


LIMITS = SandboxLimits()


class Leash:
    """Ends a grader's process from another thread: the one that runs now, and each that would begin later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_cut = False

    def hold_process(self, process: subprocess.Popen[bytes]) -> None:
        """Take a process that has begun."""
        with self._lock:
            self._process = process
            if self._is_cut:
                process.kill()

    def cut_off(self) -> None:
        with self._lock:
            self._is_cut = True
            if self._process is not None:
                self._process.kill()


def run_python(
    source: str,
    sample: Mapping[str, Any],
    item: Mapping[str, Any],
    *,
    limits: SandboxLimits = LIMITS,
) -> float:
    """Return what the source's `grade(sample, item)` returns, a finite number.

    Raises Failure: `python_grader_runtime_error` for what the source does, `unresponsive_reward_error` if it takes
    too long, `python_grader_server_error` if this machine cannot run it safely.
    """
    return run_python_call(source, encode_call(sample, item), limits=limits)


def encode_call(sample: Mapping[str, Any], item: Mapping[str, Any]) -> bytes:
    """Return the arguments of `grade` as `run_python_call` takes them. Raises RecursionError."""
    return json.dumps({"sample": dict(sample), "item": dict(item)}).encode()


def run_python_call(source: str, call: bytes, *, limits: SandboxLimits = LIMITS, leash: Leash | None = None) -> float:
    """Do what `run_python` does, for arguments that `encode_call` wrote; from another thread, `leash` ends it."""
    reward = _in_jail(source, call, limits, leash=leash).get("reward")
    if isinstance(reward, bool) or not isinstance(reward, (int, float)) or not math.isfinite(reward):
        raise Failure("python_grader_runtime_error", "it gave no number")
    return float(reward)


def run_python_on_all(
    source: str, calls: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], *, limits: SandboxLimits = LIMITS
) -> list[float | Failure]:
    """Return what the source's `grade` returns for each (sample, item), or why not, with few processes.

    The calls in a process are made one after the other, with the same random numbers and the same order of sets each
    time, within the limits of one run. If that is not enough, each gets a process of its own.
    """
    rewards: list[float | Failure] = []
    for start in range(0, len(calls), CALLS_A_PROCESS):
        part = calls[start : start + CALLS_A_PROCESS]
        rewards += _run_together(source, part, limits) or [_run_alone(source, call, limits) for call in part]
    return rewards


def _run_together(
    source: str, calls: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], limits: SandboxLimits
) -> list[float | Failure] | None:
    pairs = [{"sample": dict(sample), "item": dict(item)} for sample, item in calls]
    input_bytes = json.dumps({"calls": pairs}).encode()
    try:
        answers: Any = _in_jail(source, input_bytes, limits, most=_MOST_ANSWER * len(calls)).get("answers")
    except Failure as failure:
        return [failure for _ in calls] if failure.kind == "sandbox" else None
    if not isinstance(answers, list) or len(cast("list[Any]", answers)) != len(calls):
        return None
    return [_reward_in(reply) for reply in cast("list[Any]", answers)]


def _run_alone(
    source: str, call: tuple[Mapping[str, Any], Mapping[str, Any]], limits: SandboxLimits
) -> float | Failure:
    try:
        return run_python(source, *call, limits=limits)
    except Failure as failure:
        return failure


def _reward_in(answer: Any) -> float | Failure:
    fields = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}
    reward = fields.get("reward")
    if isinstance(reward, (int, float)) and not isinstance(reward, bool) and math.isfinite(reward):
        return float(reward)
    return Failure("python_grader_runtime_error", str(fields.get("error", "it gave no number"))[:_MOST_SAID])


def check_python(source: str, *, limits: SandboxLimits = LIMITS, leash: Leash | None = None) -> None:
    """Raise Failure if a source cannot be compiled or has no function `grade`; nothing of it is run."""
    _in_jail(source, b"{}", limits, leash=leash)


def _in_jail(
    source: str, input_bytes: bytes, limits: SandboxLimits, *, most: int = _MOST_ANSWER, leash: Leash | None = None
) -> dict[str, Any]:
    """Run the jail and return its answer. Raises Failure."""
    head = {
        "source": source,
        "cpu_seconds": limits.cpu_seconds,
        "memory_bytes": limits.memory_bytes,
        "parent": os.getpid(),
    }
    deadline = time.monotonic() + limits.wall_seconds
    try:
        process = _start_jail(json.dumps(head).encode() + b"\n" + input_bytes)
    except OSError as error:
        raise _machine_fault(f"this machine cannot start a process for a grader: {error}") from error
    with process:
        try:
            if leash is not None:
                leash.hold_process(process)
            output = _read_output(process, deadline, most)
        finally:
            process.kill()
    return _judge_output(output, process.returncode, limits)


def _start_jail(request: bytes) -> subprocess.Popen[bytes]:
    with tempfile.TemporaryFile() as input_file:
        input_file.write(request)
        input_file.seek(0)
        return subprocess.Popen(
            [sys.executable, "-s", "-P", "-S", "-B", str(_JAIL)],
            cwd="/",
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _SAME_ORDER,
            stdin=input_file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@dataclass(frozen=True)
class _ProcessOutput:
    """What came out of a process, and how that ended: at the end of the process, too late, or the pipe alone did."""

    data: bytes
    end: Literal["ended", "late", "closed"]


def _read_output(process: subprocess.Popen[bytes], deadline: float, most: int) -> _ProcessOutput:
    """Return all that the process says. Raises Failure if it says too much."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    readable = select.poll()  # select(2) takes no descriptor above 1023
    readable.register(pipe, select.POLLIN)
    data = b""
    while len(data) <= most:
        if not readable.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return _ProcessOutput(data, "late")
        more = os.read(pipe, 1 << 16)
        if not more:
            return _ProcessOutput(data, "ended" if _ends_now(process) else "closed")
        data += more
    raise Failure("python_grader_runtime_error", f"it wrote more than {most} bytes to its answer")


def _ends_now(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process is over once its pipe is: the kernel closes the pipe when it ends, unless the source did."""
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _judge_output(output: _ProcessOutput, status: int, limits: SandboxLimits) -> dict[str, Any]:
    if not output.data:  # the program that shuts the source in did not even begin
        late = output.end == "late"
        why = f"has not begun after {limits.wall_seconds:g} seconds" if late else f"ended at once (status {status})"
        raise _machine_fault(f"this machine cannot run a grader: its process {why}")
    if output.end == "late":
        raise Failure("unresponsive_reward_error", f"it was not done after {limits.wall_seconds:g} seconds")
    if status == -signal.SIGXCPU:
        raise Failure("unresponsive_reward_error", f"it used more than {limits.cpu_seconds} seconds of a processor")
    if output.end == "closed":
        return _decode_answer(output.data, otherwise="it closed the pipe for its answer, and went on running")
    return _decode_answer(output.data, otherwise=f"it ended without an answer (status {status})")


def _decode_answer(data: bytes, *, otherwise: str) -> dict[str, Any]:
    """Return the answer behind the marks. Raises Failure, with what happened `otherwise` if there is none."""
    running = data.startswith(UP + RUNNING)
    try:
        answer = json.loads(data.removeprefix(UP).removeprefix(RUNNING) if running else data.removeprefix(UP))
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise Failure("python_grader_runtime_error", otherwise)
    fields = cast("dict[str, Any]", answer)
    if "error" in fields:
        why = str(fields["error"])[:_MOST_SAID]
        # Behind RUNNING the source may have written this itself.
        if fields.get("kind") == "sandbox" and not running:
            raise _machine_fault(why)
        raise Failure("python_grader_runtime_error", why)
    return fields


def _machine_fault(why: str) -> Failure:
    return Failure("python_grader_server_error", why, kind="sandbox")
