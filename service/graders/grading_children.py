"""The processes that grade for this one: a few, in turns by project, killed if they take too long or nobody waits."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import service
from service.graders.frames import HEADER, Pieces, pack_message
from service.graders.grading_program import CPU_SECONDS, READY
from service.kit.errors import Unavailable
from service.kit.fair_turns import FairTurns
from service.kit.tether import tether_command
from trainer.graders import Failure, Grade, GraderQuestion

_log = logging.getLogger(__name__)

CHILDREN = 2
WALL_SECONDS, START_SECONDS = 30.0, 60.0
_COMMAND = (sys.executable, "-m", "service.graders.grading_program")
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


class ChildGone(Exception):
    """The process has ended; `status` as that of a child."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@dataclass(frozen=True)
class GradingOutcome:
    """A grade; or what the grader asks for before it can give one."""

    grade: Grade | None = None
    questions: tuple[GraderQuestion, ...] = ()
    calls: int = 0
    call: bytes = b""
    """The arguments of the calls, as the sandbox takes them."""


class GradingChild:
    """One process. It is tied to the thread that starts it: the one of the event loop (see `kit/tether.py`)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> GradingChild:
        """Start one and wait until it can grade. Raises Unavailable."""
        try:
            process = await asyncio.create_subprocess_exec(
                *tether_command(_COMMAND),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=_child_environment(),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"no process for grading can be started: {error}") from error
        child = cls(process)
        try:
            async with asyncio.timeout(START_SECONDS):
                # Loading its modules takes a while: only then does the time of a grading begin.
                ready = await child.read() == READY
        except (ChildGone, TimeoutError):
            ready = False
        except BaseException:
            # A cancelled start must leave no process behind.
            await child.kill_and_reap()
            raise
        if not ready:
            raise Unavailable(f"a process for grading ended at its start, with status {await child.kill_and_reap()}")
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not been seen to end."""
        return self._process.returncode is None

    async def send(self, pieces: Pieces) -> None:
        """Send a message; that the process has gone is seen when its answer is read."""
        assert self._process.stdin is not None
        # The end of the process is reported by `read`, with its status.
        with suppress(ConnectionError):
            self._process.stdin.write(pack_message(pieces))
            await self._process.stdin.drain()

    async def read(self) -> Pieces:
        """Return its next message. Raises ChildGone."""
        assert self._process.stdout is not None
        try:
            first, second = HEADER.unpack(await self._process.stdout.readexactly(HEADER.size))
            return await self._process.stdout.readexactly(first), await self._process.stdout.readexactly(second)
        except asyncio.IncompleteReadError as error:
            raise ChildGone(await self._process.wait()) from error

    async def kill_and_reap(self) -> int:
        """Kill it, read what it left in its pipe, and return its status."""
        with suppress(ProcessLookupError):
            self._process.kill()
        # Reads the pipe to its end, or the transport would stay open.
        await self._process.communicate()
        return self._process.returncode or 0


class GradingChildren:
    """The pool of one API process. The children start when they are first needed, and again after their ends."""

    def __init__(self, children: int = CHILDREN, *, wall_seconds: float = WALL_SECONDS) -> None:
        # A child is left for others while one project grades without end. How many wait is bounded by the requests.
        self._turns = FairTurns(
            children, noun="gradings", per_project=max(1, children - 1), waiting_per_project=sys.maxsize
        )
        self._wall_seconds = wall_seconds
        self._idle: list[GradingChild] = []
        self.started: list[int] = []
        """The ids of all processes that were started."""

    async def grade_body(self, project_id: str, body: bytes, answers: Mapping[str, Any]) -> GradingOutcome:
        """Grade the body of a request as far as the answers go. Raises Failure, Unavailable."""
        async with self._turns.hold_turn(project_id):
            child = await self._take_child()
            try:
                async with asyncio.timeout(self._wall_seconds):
                    await child.send((body, json.dumps(answers).encode()))
                    reply_bytes, call = await child.read()
            except ChildGone as child_gone:
                await child.kill_and_reap()
                raise _explain_end(child_gone.status) from child_gone
            except TimeoutError as error:
                await child.kill_and_reap()
                raise Failure(
                    "unresponsive_reward_error", f"it was not done after {self._wall_seconds:g} seconds"
                ) from error
            except BaseException:  # the caller hung up
                await asyncio.shield(child.kill_and_reap())
                raise
            self._idle.append(child)
        return _parse_outcome(reply_bytes, call)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().kill_and_reap()

    async def _take_child(self) -> GradingChild:
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
            await child.kill_and_reap()
        child = await GradingChild.start()
        self.started.append(child.pid)
        return child


def _parse_outcome(reply_bytes: bytes, call: bytes) -> GradingOutcome:
    reply: dict[str, Any] = json.loads(reply_bytes)
    if "grade" in reply:
        return GradingOutcome(grade=Grade.model_validate(reply["grade"]))
    questions = tuple(GraderQuestion.model_validate(question) for question in reply["questions"])
    return GradingOutcome(questions=questions, calls=reply["calls"], call=call)


def _explain_end(status: int) -> Failure:
    if status == -signal.SIGXCPU:
        return Failure("unresponsive_reward_error", f"it used more than {CPU_SECONDS} seconds of a processor")
    _log.error("A process for grading ended with status %d", status)
    return Failure(
        "other_error", f"the process that graded ended by itself (status {status}), likely for lack of memory"
    )


def _child_environment() -> dict[str, str]:
    """Return a child's whole environment: no secret of the service is in it."""
    variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    home = Path(service.__file__).resolve().parents[1]
    return variables | {"PYTHONPATH": str(home), "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}
