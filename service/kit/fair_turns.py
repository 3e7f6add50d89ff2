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

_ALONE_SECONDS = 2.0
"""How long a project counts as one that uses the places, after it has asked for one."""


class TurnsExhausted(ServiceError):
    """The project has as many requests of this kind waiting as may wait."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_at_once"
    retry = True

    def __init__(self, noun: str, waiting: int, *, retry_after: float, of: str = "of this project") -> None:
        super().__init__(
            f"{waiting} {noun} {of} are waiting already, the most that may. Wait for some of them to end, "
            f"or try again in {retry_after:g} seconds."
        )
        self.headers = {"retry-after": f"{max(1, round(retry_after))}"}


class Turn:
    """A place that is held. Work that takes long lets other projects have it for a while by `let_others_go`."""

    def __init__(self, turns: FairTurns, project_id: str) -> None:
        self._turns = turns
        self._project_id = project_id
        self.held = True

    @property
    def others_wait(self) -> bool:
        """Whether a request of another project waits."""
        return self._turns.count_waiting() > self._turns.count_waiting(self._project_id)

    async def let_others_go(self) -> None:
        """Give the place to the other projects that wait, and wait for the next one before the project's own requests.

        It is refused by no bound: the request was let in already.
        """
        if not self.others_wait:
            return
        self.held = False  # a request that is cancelled while it waits has no place to release
        await self._turns.take_again(self._project_id)
        self.held = True


class FairTurns:
    """A number of places, given to waiting projects in rotation: to the project with the fewest places first.

    `per_project` bounds how many places one project holds at once, `waiting_per_project` how many of its requests
    wait and `waiting` how many of all projects; one more is refused by TurnsExhausted before any work is done for it.
    One project never fills `waiting`, unless that is one. While other projects use the places too, one holds a third
    of them at most: threads take Python's one lock in turns, and each place of a flood makes the others slower. `noun`
    names the requests in that sentence, in the plural, and `of` the owner: places may be shared out by something else
    than the project, such as an address.
    """

    def __init__(
        self,
        places: int,
        *,
        noun: str,
        per_project: int | None = None,
        waiting_per_project: int = 64,
        waiting: int | None = None,
        retry_after: float = 2.0,
        of: str = "of this project",
    ) -> None:
        self._free = places
        self._share = max(1, places // 3)
        self._noun = noun
        self._of = of
        self._per_project = places if per_project is None else min(per_project, places)
        self._waiting = waiting
        self._waiting_per_project = (
            waiting_per_project if waiting is None else min(waiting_per_project, max(1, waiting - 1))
        )
        self._retry_after = retry_after
        self._held: Counter[str] = Counter()
        # The order of the keys is the order of the last turns: whoever had one goes to the end.
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        # When each project last asked, the one that asked last at the end.
        self._asked_at: OrderedDict[str, float] = OrderedDict()

    @asynccontextmanager
    async def hold_turn(self, project_id: str) -> AsyncGenerator[Turn]:
        """Hold a place for the length of the block. Raises TurnsExhausted if too many requests wait."""
        await self._take_place(project_id)
        turn = Turn(self, project_id)
        try:
            yield turn
        finally:
            if turn.held:
                self._give_place_back(project_id)

    async def take_again(self, project_id: str) -> None:
        """Give a place back and wait for the next one at the head of the project's queue: for `Turn` alone."""
        place = asyncio.get_running_loop().create_future()
        # First in the queue and only then released: otherwise the project's next request would take the place.
        self._queues.setdefault(project_id, deque()).appendleft(place)
        self._give_place_back(project_id)
        await self._wait_for_place(project_id, place)

    def count_waiting(self, project_id: str | None = None) -> int:
        """Return how many requests wait, of one project or of all."""
        if project_id is not None:
            return len(self._queues.get(project_id, ()))
        return sum(map(len, self._queues.values()))

    def count_held(self, project_id: str | None = None) -> int:
        """Return how many places are held, by one project or by all."""
        return self._held[project_id] if project_id is not None else self._held.total()

    async def _take_place(self, project_id: str) -> None:
        self._note_request(project_id)
        queue = self._queues.get(project_id)
        # Not past the project's own queue: its requests stay in order.
        if self._free and not queue and self._held[project_id] < self._most_places(project_id):
            self._occupy_place(project_id)
            return
        if queue is not None and len(queue) >= self._waiting_per_project:
            raise TurnsExhausted(self._noun, self._waiting_per_project, retry_after=self._retry_after, of=self._of)
        if self._waiting is not None and self.count_waiting() >= self._waiting:
            raise TurnsExhausted(self._noun, self._waiting, retry_after=self._retry_after, of="of all projects")
        place = asyncio.get_running_loop().create_future()
        self._queues.setdefault(project_id, deque()).append(place)
        await self._wait_for_place(project_id, place)

    async def _wait_for_place(self, project_id: str, place: asyncio.Future[None]) -> None:
        try:
            await place
        except asyncio.CancelledError:
            # A future that is done holds a place already, although this coroutine never ran on.
            if place.cancelled() or not place.done():
                self._leave_queue(project_id, place)
            else:  # the place was given in the moment in which the request was cancelled
                self._give_place_back(project_id)
            raise

    def _note_request(self, project_id: str) -> None:
        now = asyncio.get_running_loop().time()
        self._asked_at[project_id] = now
        self._asked_at.move_to_end(project_id)
        while now - next(iter(self._asked_at.values())) > _ALONE_SECONDS:
            self._asked_at.popitem(last=False)

    def _most_places(self, project_id: str) -> int:
        others = len(self._asked_at) - (project_id in self._asked_at)
        return min(self._per_project, self._share) if others else self._per_project

    def _occupy_place(self, project_id: str) -> None:
        # At the moment of the decision and not when the waiter runs: the event loop may run others in between.
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
        if project_id in self._queues:  # its turn ends now: whoever came meanwhile is before it
            self._queues.move_to_end(project_id)
        self._fill_places()

    def _fill_places(self) -> None:
        while self._free:
            waiting = [project for project in self._queues if self._held[project] < self._most_places(project)]
            if not waiting:
                return
            project = min(waiting, key=self._held.__getitem__)  # `min` keeps the first of equals: the longest without
            queue = self._queues[project]
            place = queue.popleft()
            if queue:
                self._queues.move_to_end(project)
            else:
                del self._queues[project]
            # A cancelled waiter is still in the queue until its coroutine runs; it must get no place.
            if not place.done():
                self._occupy_place(project)
                place.set_result(None)
