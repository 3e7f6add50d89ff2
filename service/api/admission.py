"""Who may come in: key, scope and rate are checked before a byte of the body is read or parsed."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread
from fastapi import Request

from service.api.guards import refuse_unreadable_url
from service.context import Context
from service.keys.auth import find_principal, get_admin
from service.keys.service import Principal, require_token
from service.kit.fair_turns import FairTurns
from service.kit.settings import Settings
from service.limits.rates import RateBook, count_request

READING, WRITING = 5, 7
"""How many requests read, and write, at once: together fewer than the pool has connections, and there are threads.

Apart, so that no reading waits behind a queue for SQLite's one writer. More readers than these only take Python's one
lock from each other: at ten, a machine near its limit spent its time on the changes between them and fell behind.
"""
_KNOWN_LOOKUPS, _NEW_LOOKUPS = 4, 2
"""How many keys are looked up at once: of those that were good before, in turns by project, and of all others, in turns
by address. A stranger's guesses hold up no key that is in use, and a tenant's flood no other tenant."""
_MOST_KNOWN = 10_000
SMALL_BODY = 64 << 10
"""Bodies up to this size are read by as many requests as there are connections."""
_LARGE_BODIES = 48
"""How many larger ones a process holds at once: of a megabyte each at most."""


class Admission:
    """What all requests to one process pass; made with the application, used in its event loop."""

    def __init__(self, settings: Settings | None) -> None:
        waiting = settings.requests_waiting if settings is not None else 1
        self._lookups = FairTurns(
            _KNOWN_LOOKUPS, noun="requests", per_project=_KNOWN_LOOKUPS - 1, waiting_per_project=waiting, retry_after=1
        )
        self._new_lookups = FairTurns(
            _NEW_LOOKUPS, noun="keys", per_project=1, waiting_per_project=waiting, retry_after=1, of="of this address"
        )
        self._projects_of_keys: OrderedDict[bytes, str] = OrderedDict()
        self._reading = FairTurns(
            READING, noun="readings", per_project=READING - 1, waiting_per_project=waiting, retry_after=1
        )
        self._writing = FairTurns(
            WRITING, noun="changes", per_project=WRITING - 1, waiting_per_project=waiting, retry_after=1
        )
        self._bodies = FairTurns(
            _LARGE_BODIES, noun="large bodies", per_project=_LARGE_BODIES // 4, waiting_per_project=waiting
        )
        self._parsing = FairTurns(1, noun="large bodies", waiting_per_project=_LARGE_BODIES)

    async def admit_request(self, request: Request, dependencies: Collection[Callable[..., Any]]) -> None:
        """Check the URL, the key, its scope and the project's rate; the key's owner goes to `request.state`.

        `dependencies` are all that the route depends on: one for administrators has `get_admin` among them.

        Raises InvalidRequest, Unauthenticated, PermissionDenied, RateLimited or Unavailable.
        """
        # The cheapest checks come first, and all of them before the body: a stranger must not make this process parse
        # megabytes.
        refuse_unreadable_url(request)
        token = require_token(request.headers.get("authorization"))
        context: Context = request.app.state.context
        book: RateBook = request.app.state.rate_book
        # Only a hash stays in memory, for a dump of the process would otherwise hold everybody's keys.
        principal = await self._look_up(request, context, hashlib.sha256(token.encode("utf-8", "replace")).digest())
        principal.require_scope("read" if request.method in ("GET", "HEAD") else "write")
        if get_admin in dependencies:
            principal.require_scope("admin")
        # After the scope: a refused request must not use up the project's rate.
        await count_request(context, principal, book)
        request.state.principal = principal

    @asynccontextmanager
    async def hold_body(self, request: Request) -> AsyncGenerator[None]:
        """Hold a place for a body that is large, or of a size that is not announced. Raises TurnsExhausted."""
        size = request.headers.get("content-length", "0" if "transfer-encoding" not in request.headers else "")
        # `isdigit` alone accepts other scripts' digits, and `int` of thousands of digits takes long.
        if size.isascii() and size.isdigit() and len(size) < 10 and int(size) <= SMALL_BODY:
            yield
            return
        async with self._bodies.hold_turn(_project_of(request)):
            yield

    @asynccontextmanager
    async def parse_alone(self, request: Request, size: int) -> AsyncGenerator[None]:
        """Let large bodies be parsed one by one, with the projects in turns: other requests are served in between."""
        if size <= SMALL_BODY:
            yield
            return
        async with self._parsing.hold_turn(_project_of(request)):
            yield

    async def _look_up(self, request: Request, context: Context, digest: bytes) -> Principal:
        project_id = self._projects_of_keys.get(digest)
        if project_id is not None:  # the database still says whether the key is good
            async with self._lookups.hold_turn(project_id):
                return await to_thread.run_sync(find_principal, request, context)
        address = request.client.host if request.client else ""
        # By address, because an unknown key has no project yet.
        async with self._new_lookups.hold_turn(address):
            principal = await to_thread.run_sync(find_principal, request, context)
        # Only after the key was found to be good: guesses never enter the fast lane.
        self._projects_of_keys[digest] = principal.project_id
        if len(self._projects_of_keys) > _MOST_KNOWN:
            # The oldest entry: at worst its key takes the slower way once.
            self._projects_of_keys.popitem(last=False)
        return principal

    def choose_turns(self, request: Request) -> FairTurns:
        """Return the places that a request of this method needs one of."""
        return self._reading if request.method in ("GET", "HEAD") else self._writing


def _project_of(request: Request) -> str:
    principal: Principal = request.state.principal
    return principal.project_id
