"""Rates: every request with a key is counted, and refused where a project sends too many."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

from anyio import to_thread
from fastapi import Depends, Request

from service.context import Context
from service.keys.service import Principal
from service.kit import metrics
from service.kit.call import CALL
from service.limits.errors import RateLimited
from service.limits.service import limits_of
from service.limits.values import QuotaLimits
from service.queue.base import BucketState

_KNOWN_SECONDS = 5.0
_MOST_KNOWN = 10_000


class RateBook:
    """The limits of the projects that asked lately, so that a request does not ask SQL for them.

    What an administrator changes holds after `_KNOWN_SECONDS` at the latest, in the process that changes it at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, QuotaLimits]] = {}

    def known_limits(self, project_id: str) -> QuotaLimits | None:
        """Return a project's limits where they were looked up lately."""
        until, limits = self._known.get(project_id, (0.0, None))
        return limits if self._clock() < until else None

    def look_up_limits(self, context: Context, project_id: str) -> QuotaLimits:
        """Return a project's limits, looked up where they are not known: call it from a thread. Raises Unavailable."""
        limits = self.known_limits(project_id)
        if limits is None:
            until = self._clock() + _KNOWN_SECONDS
            with context.db.read() as session:
                limits = limits_of(session, QuotaLimits.from_settings(context.settings), project_id)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[project_id] = (until, limits)
        return limits

    def forget_limits(self, project_id: str) -> None:
        """Look a project's limits up again at its next request."""
        self._known.pop(project_id, None)


def get_rate_book(request: Request) -> RateBook:
    """Return the process's book."""
    book: RateBook = request.app.state.rate_book
    return book


RateBookDep = Annotated[RateBook, Depends(get_rate_book)]


async def count_request(context: Context, principal: Principal, book: RateBook) -> None:
    """Count a request of a key, before its body is read. Raises RateLimited.

    A project without a limit, known as such, costs no turn among the threads.
    """
    limits = book.known_limits(principal.project_id)
    if limits is None:
        limits = await to_thread.run_sync(book.look_up_limits, context, principal.project_id)
    if limits.requests_per_minute is not None:
        await to_thread.run_sync(_take_from_bucket, context, principal, "requests", limits.requests_per_minute, 1)


def take_tokens(context: Context, principal: Principal, book: RateBook, tokens: int) -> None:
    """Count the tokens that a request may use, at most, before it is answered: the question's and the longest answer's.

    It blocks for up to a quarter of a second: call it from a thread. `settle_tokens` corrects it. Raises RateLimited.
    """
    limit = book.look_up_limits(context, principal.project_id).tokens_per_minute
    if limit is None:
        return
    if tokens > limit:
        raise RateLimited(
            f"This request may use {tokens} tokens, more than the {limit} that this project has in a minute: send a "
            "shorter one, or lower its max_completion_tokens.",
            kind="tokens",
            seconds=None,
        )
    _take_from_bucket(context, principal, "tokens", limit, tokens)


def settle_tokens(context: Context, principal: Principal, book: RateBook, *, taken: int, used: int) -> None:
    """Put back what an answer did not use of the tokens that were taken for it, or take what it used beyond."""
    limit = book.look_up_limits(context, principal.project_id).tokens_per_minute
    if limit is not None and used != taken:
        context.rates.take(_bucket_key(principal, "tokens"), limit=limit, cost=used - taken, force=True)


def _take_from_bucket(context: Context, principal: Principal, kind: str, limit: int, cost: int) -> None:
    taken = context.rates.take(_bucket_key(principal, kind), limit=limit, cost=cost)
    if taken is None:
        return
    call = CALL.get()
    if call is not None:
        call.headers.update(_make_rate_headers(kind, limit, taken))
        call.unrecorded = not taken.allowed
    if not taken.allowed:
        metrics.RATE_LIMITED.labels(kind).inc()
        raise RateLimited(
            f"This project has reached its limit of {limit} {kind} a minute. "
            f"Try again in {format_duration(taken.wait)}.",
            kind=kind,
            seconds=taken.wait,
        )


def _bucket_key(principal: Principal, kind: str) -> str:
    return f"{principal.project_id}:{kind}"


def _make_rate_headers(kind: str, limit: int, taken: BucketState) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(taken.remaining),
        f"x-ratelimit-reset-{kind}": format_duration(taken.full_in),
    }


def format_duration(seconds: float) -> str:
    """Write a time as OpenAI does: `12ms`, `8.64s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
