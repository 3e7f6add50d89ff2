"""Turns at grading, by project: requests at work, processes that grade, and Python graders over all of a machine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from service.graders.errors import GradersBusy
from service.graders.grading_children import GradingChildren
from service.graders.python_slots import PythonSlots
from service.kit.fair_turns import FairTurns, TurnsExhausted
from service.kit.settings import Settings
from trainer.graders import Failure
from trainer.graders.sandbox import LIMITS, Leash, SandboxLimits

T = TypeVar("T")
AT_WORK, WAITING = 16, 32
"""Requests of this process that are at work, half of them of one project at most; those of a project that wait."""
PYTHON_SECONDS = 40.0
"""How long the Python graders of one request may take together, waiting for a slot included."""


class PythonSlotsBusy(Exception):
    """No slot for a Python grader came free in time."""


class PythonTurns:
    """Runs Python graders in threads of this process, within the slots of the machine."""

    def __init__(self, folder: Path, processes: int | None = None, *, limits: SandboxLimits = LIMITS) -> None:
        count = processes or os.cpu_count() or 1
        most = max(1, count // 2)
        self._slots = PythonSlots(folder, count=count, per_project=most)
        # Inside of one process projects take turns; between processes, whoever looks first.
        self._turns = FairTurns(count, noun="Python graders", per_project=most, waiting_per_project=AT_WORK)
        self._threads = CapacityLimiter(count)
        self._limits = limits

    async def run_in_slot(self, project_id: str, deadline: float, work: Callable[[SandboxLimits, Leash], T]) -> T:
        """Return what `work` does in a thread; the process on its leash dies if the caller is cancelled.

        `deadline` is a time of the event loop. Raises PythonSlotsBusy, and what `work` raises: Failure.
        """
        async with AsyncExitStack() as open_turns:
            try:
                async with asyncio.timeout_at(deadline):
                    await open_turns.enter_async_context(self._turns.hold_turn(project_id))
                    await open_turns.enter_async_context(self._slots.hold_slot(project_id))
            except TimeoutError as error:
                raise PythonSlotsBusy from error
            except OSError as error:
                why = f"this machine cannot lock a slot for Python graders: {error}"
                raise Failure("python_grader_server_error", why, kind="sandbox") from error
            seconds = max(0.1, min(self._limits.wall_seconds, deadline - asyncio.get_running_loop().time()))
            within = SandboxLimits(self._limits.cpu_seconds, seconds, self._limits.memory_bytes)
            return await self._run_on_leash(partial(work, within))

    async def _run_on_leash(self, work: Callable[[Leash], T]) -> T:
        leash = Leash()
        task = asyncio.create_task(to_thread.run_sync(partial(work, leash), limiter=self._threads))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            leash.cut_off()
            await asyncio.wait({task})  # the slot is held until the process is gone
            task.exception()
            raise


class GradingTurns:
    """All turns of one API process."""

    def __init__(self, settings: Settings | None, *, at_work: int = AT_WORK, waiting: int = WAITING) -> None:
        """Without settings there is nothing to grade: the application only describes itself."""
        self._waiting = waiting
        self._requests = FairTurns(
            at_work, noun="gradings", per_project=max(1, at_work // 2), waiting_per_project=waiting
        )
        self.children = GradingChildren()
        folder = settings.data / "python-slots" if settings is not None else Path(os.devnull)
        self.python = PythonTurns(folder, settings.python_grader_processes if settings is not None else None)

    @asynccontextmanager
    async def hold_request_turn(self, project_id: str) -> AsyncGenerator[None]:
        """Be at work for the length of the block. Raises GradersBusy if too many of the project's requests wait."""
        async with AsyncExitStack() as open_turns:
            try:
                await open_turns.enter_async_context(self._requests.hold_turn(project_id))
            except TurnsExhausted as error:
                raise GradersBusy(self._waiting) from error
            yield
