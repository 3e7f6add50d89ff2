"""Names of receivers, resolved beside everything else: a name that never resolves costs its own project alone.

The system's resolver blocks a thread, and nothing can end it. So each lookup has a thread of its own that dies with
the process, projects take turns at a bounded number of them, and a place is taken until the thread has ended, though
its answer is no longer needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from service.kit.fair_turns import FairTurns

_PLACES, _PER_PROJECT, _WAITING = 64, 2, 128
_SECONDS = 5.0
_REMEMBER_FAILURE, _REMEMBER_SILENCE = 3.0, 30.0
"""Seconds: shorter than the pause before a delivery's second try; a name server's silence is remembered longer."""
_MOST_REMEMBERED = 4096

Lookup = Callable[[str, int], Sequence[str]]
"""Gives the numeric addresses of a host, however long it takes; raises OSError or UnicodeError."""


class LookupTimedOut(OSError):
    """The name service did not answer in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the name service did not answer within {seconds:g} s")


def ask_system(host: str, port: int) -> Sequence[str]:
    """Ask the system's name service. Raises OSError or UnicodeError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class NameResolver:
    """Resolves names for projects, each within `seconds` once its turn has come. It belongs to one event loop."""

    def __init__(
        self,
        lookup: Lookup = ask_system,
        *,
        seconds: float = _SECONDS,
        places: int = _PLACES,
        per_project: int = _PER_PROJECT,
    ) -> None:
        self._lookup = lookup
        self._seconds = seconds
        self._turns = FairTurns(
            places, noun="lookups of host names", per_project=per_project, waiting_per_project=_WAITING
        )
        self._failed: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._ending: set[asyncio.Task[None]] = set()

    async def __call__(self, host: str, port: int, project_id: str) -> Sequence[str]:
        """Return a host's addresses. Raises OSError, UnicodeError, or TurnsExhausted if too many of a project wait."""
        # Before the turn: a host that just failed must cost no place among the threads.
        self._check_remembered(host)
        place = contextlib.AsyncExitStack()
        await place.enter_async_context(self._turns.hold_turn(project_id))
        try:
            self._check_remembered(host)  # it may have failed for another while this one waited
        except OSError:
            await place.aclose()
            raise
        answer = self._start_lookup(host, port)
        answer.add_done_callback(lambda _: self._end_lookup(host, answer, place))
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(answer)
        except TimeoutError:
            error = LookupTimedOut(self._seconds)
            self._remember_failure(host, str(error), _REMEMBER_SILENCE)
            raise error from None

    def _start_lookup(self, host: str, port: int) -> asyncio.Future[Sequence[str]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()

        def settle_answer(outcome: Sequence[str] | Exception) -> None:
            if answer.done():
                return
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        def run_lookup() -> None:
            try:
                outcome: Sequence[str] | Exception = self._lookup(host, port)
            except Exception as error:  # noqa: BLE001 - raised where the answer is waited for
                outcome = error
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(settle_answer, outcome)

        threading.Thread(target=run_lookup, name="resolver", daemon=True).start()
        return answer

    def _end_lookup(self, host: str, answer: asyncio.Future[Sequence[str]], place: contextlib.AsyncExitStack) -> None:
        """Free the place of a finished lookup, and keep its answer, however late it came."""
        error = None if answer.cancelled() else answer.exception()
        if error is None:
            self._failed.pop(host, None)
        else:
            self._remember_failure(host, str(error), _REMEMBER_FAILURE)
        task = asyncio.get_running_loop().create_task(place.aclose())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _check_remembered(self, host: str) -> None:
        until, reason = self._failed.get(host, (0.0, ""))
        if time.monotonic() < until:
            raise OSError(reason)

    def _remember_failure(self, host: str, reason: str, seconds: float) -> None:
        self._failed[host] = (time.monotonic() + seconds, reason)
        self._failed.move_to_end(host)
        while len(self._failed) > _MOST_REMEMBERED:
            self._failed.popitem(last=False)
