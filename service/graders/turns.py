"""Turns at grading: a few at work, some waiting, the rest refused; fewer processes of Python graders still."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from anyio import CapacityLimiter

from service.graders.errors import GradersBusy
from trainer.graders import Failure, RunPython
from trainer.graders.sandbox import LIMITS, Limits, run_python

AT_WORK, WAITING = 16, 64
"""Threads of this process that grade, and requests that wait for one."""
PYTHON_SECONDS = 40.0
"""How long the Python graders of one request may take together, waiting for a turn included."""


class Turns:
    """Of one API process."""

    def __init__(self, *, at_work: int = AT_WORK, waiting: int = WAITING, processes: int | None = None) -> None:
        self._processes = threading.BoundedSemaphore(processes or os.cpu_count() or 1)
        self._waiting = waiting
        self.threads = CapacityLimiter(at_work)

    def check(self) -> None:
        """Raise GradersBusy where enough requests wait."""
        if self.threads.statistics().tasks_waiting >= self._waiting:
            raise GradersBusy(self._waiting)

    def python(self, limits: Limits = LIMITS, *, seconds: float = PYTHON_SECONDS) -> RunPython:
        """Return what runs the Python graders of one request."""
        deadline = time.monotonic() + seconds

        def run(source: str, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
            late = Failure("unresponsive_reward_error", f"the Python graders took more than {seconds:g} seconds")
            if not self._processes.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise late
            try:
                rest = deadline - time.monotonic()
                if rest <= 0:
                    raise late
                within = Limits(limits.cpu_seconds, min(limits.wall_seconds, rest), limits.memory_bytes)
                return run_python(source, sample, item, limits=within)
            finally:
                self._processes.release()

        return run
