"""Places that projects take in turns: one project's requests never keep another's waiting for more than one turn.

Everything that many projects share inside one process (threads, child processes, a model) is guarded by one of these.
It belongs to one event loop and needs no lock.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from service.kit.errors import ServiceError


class TurnsExhausted(ServiceError):
    """The project has as many requests of this kind waiting as may wait."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_at_once"
    retry = True

    def __init__(self, what: str, waiting: int, *, retry_after: float) -> None:
        super().__init__(
            f"{waiting} {what} of this project are waiting already, the most that may. Wait for some of them to end, "
            f"or try again in {retry_after:g} seconds."
        )
        self.headers = {"retry-after": f"{max(1, round(retry_after))}"}


class FairTurns:
    """A number of places, given to waiting projects in rotation: to the project with the fewest places first.

    `per_project` bounds how many places one project holds at once, `waiting_per_project` how many of its requests
    wait; one more is refused by TurnsExhausted before any work is done for it. `what` names the requests in that
    sentence, in the plural.
    """

    def __init__(
        self,
        places: int,
        *,
        what: str,
        per_project: int | None = None,
        waiting_per_project: int = 64,
        retry_after: float = 2.0,
    ) -> None:
        self._free = places
        self._what = what
        self._per_project = places if per_project is None else min(per_project, places)
        self._waiting_per_project = waiting_per_project
        self._retry_after = retry_after
        self._held: Counter[str] = Counter()
        # The order of the keys is the order of the last turns: whoever had one goes to the end.
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, project_id: str) -> AsyncGenerator[None]:
        """Hold a place for the length of the block. Raises TurnsExhausted if too many of the project's wait."""
        await self._take(project_id)
        try:
            yield
        finally:
            self._give_place_back(project_id)

    def count_waiting(self, project_id: str | None = None) -> int:
        """Return how many requests wait, of one project or of all."""
        if project_id is not None:
            return len(self._queues.get(project_id, ()))
        return sum(map(len, self._queues.values()))

    def count_held(self, project_id: str | None = None) -> int:
        """Return how many places are held, by one project or by all."""
        return self._held[project_id] if project_id is not None else self._held.total()

    async def _take(self, project_id: str) -> None:
        queue = self._queues.get(project_id)
        if self._free and not queue and self._held[project_id] < self._per_project:
            self._hold(project_id)
            return
        if queue is not None and len(queue) >= self._waiting_per_project:
            raise TurnsExhausted(self._what, self._waiting_per_project, retry_after=self._retry_after)
        if queue is None:
            queue = self._queues[project_id] = deque()
        place = asyncio.get_running_loop().create_future()
        queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled() or not place.done():
                self._leave_queue(project_id, place)
            else:  # the place was given in the moment in which the request was cancelled
                self._give_place_back(project_id)
            raise

    def _hold(self, project_id: str) -> None:
        self._free -= 1
        self._held[project_id] += 1

    def _leave_queue(self, project_id: str, place: asyncio.Future[None]) -> None:
        queue = self._queues.get(project_id)
        if queue is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._queues[project_id]

    def _give_place_back(self, project_id: str) -> None:
        self._free += 1
        self._held[project_id] -= 1
        if not self._held[project_id]:
            del self._held[project_id]
        self._fill_places()

    def _fill_places(self) -> None:
        while self._free:
            waiting = [project for project in self._queues if self._held[project] < self._per_project]
            if not waiting:
                return
            project = min(waiting, key=self._held.__getitem__)  # `min` keeps the first of equals: the longest without
            queue = self._queues[project]
            place = queue.popleft()
            if queue:
                self._queues.move_to_end(project)
            else:
                del self._queues[project]
            if not place.done():
                self._hold(project)
                place.set_result(None)
