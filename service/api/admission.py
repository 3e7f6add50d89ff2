"""Who may come in: key, scope and rate are checked before a byte of the body is read or parsed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import Request

from service.api.guards import refuse_unreadable_url
from service.context import Context
from service.keys.auth import find_principal, get_admin
from service.keys.service import require_token
from service.kit.fair_turns import FairTurns
from service.kit.settings import Settings
from service.limits.rates import RateBook, count_request

READING, WRITING = 5, 7
"""How many requests read, and write, at once: together fewer than the pool has connections, and there are threads.

Apart, so that no reading waits behind a queue for SQLite's one writer. More readers than these only take Python's one
lock from each other: at ten, a machine near its limit spent its time on the changes between them and fell behind.
"""
_KEY_LOOKUPS = 4
"""How many keys are looked up at once, in threads that nothing else needs: strangers' guesses fill no other queue."""


class Admission:
    """What all requests to one process pass; made with the application, used in its event loop."""

    def __init__(self, settings: Settings | None) -> None:
        waiting = settings.requests_waiting if settings is not None else 1
        self._lookups = CapacityLimiter(_KEY_LOOKUPS)
        self._reading = FairTurns(
            READING, what="readings", per_project=READING - 1, waiting_per_project=waiting, retry_after=1
        )
        self._writing = FairTurns(
            WRITING, what="changes", per_project=WRITING - 1, waiting_per_project=waiting, retry_after=1
        )

    async def admit(self, request: Request, dependencies: Collection[Callable[..., Any]]) -> None:
        """Check the URL, the key, its scope and the project's rate; the key's owner goes to `request.state`.

        `dependencies` are all that the route depends on: one for administrators has `get_admin` among them.

        Raises InvalidRequest, Unauthenticated, PermissionDenied, RateLimited or Unavailable.
        """
        refuse_unreadable_url(request)
        require_token(request.headers.get("authorization"))
        context: Context = request.app.state.context
        book: RateBook = request.app.state.rate_book
        principal = await to_thread.run_sync(find_principal, request, context, limiter=self._lookups)
        principal.require("read" if request.method in ("GET", "HEAD") else "write")
        if get_admin in dependencies:
            principal.require("admin")
        await count_request(context, principal, book)
        request.state.principal = principal

    def choose_turns(self, request: Request) -> FairTurns:
        """Return the places that a request of this method needs one of."""
        return self._reading if request.method in ("GET", "HEAD") else self._writing
