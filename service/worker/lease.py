"""The hold on a running job: renewed by a thread of its own, and lost early if the database does not answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from sqlalchemy.orm import Session

from service.jobs import repository
from service.jobs.errors import StaleLease
from service.kit.db import Database
from service.kit.errors import Unavailable
from service.kit.log import carry_context
from service.kit.settings import Settings
from service.staging.errors import JobPaused, JobTimedOut, LeaseLost, WorkerStopping
from service.staging.hold import WorkHold

log = logging.getLogger(__name__)

SAFE_SHARE = 5 / 6
"""A holder gives up after this share of the lease without a renewal, so that no successor starts beside it."""


class LeasedRows(Protocol):
    """The SQL of what is leased: `jobs.repository`, or that of another kind of work."""

    def renew_lease(self, session: Session, job_id: str, token: int, /, *, lease_seconds: float, **values: Any) -> bool:
        """Prolong the lease, writing further columns with it. False if the token is stale."""
        ...

    def pause_wanted(self, session: Session, job_id: str, token: int, /) -> bool | None:
        """Return whether the work is to be paused; None if it is not the token's any more."""
        ...


class Lease(WorkHold):
    """A context manager around one attempt. `lost` is decided by a clock as well, so it cannot come too late.

    `since` is `time.monotonic()` from before the claim, `time_left` the seconds that the job may run from there on.
    """

    def __init__(
        self,
        db: Database,
        settings: Settings,
        *,
        job_id: str,
        token: int,
        stop: threading.Event,
        since: float,
        time_left: float | None = None,
        rows: LeasedRows = repository,
    ) -> None:
        super().__init__(job_id, stop=stop, poll_seconds=settings.poll_seconds)
        self.since = since
        self._until = None if time_left is None else since + time_left
        self.job_id = job_id
        self.token = token
        self._db = db
        self._rows = rows
        self._settings = settings
        # From before the claim, like every `began` below: the database started the lease later, so this clock errs on
        # the safe side.
        self._renewed = since
        self._stale = threading.Event()
        self._pause = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=carry_context(self._renew_until_closed), name=f"lease-{job_id}", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        # Bounded, because the thread may hang in a transaction with a dead database.
        self._thread.join(self._settings.heartbeat_seconds)

    @property
    def lost(self) -> bool:
        """Whether this worker must stop working on the job."""
        # The clock decides too: with the database away, nothing else would say that the lease has run out.
        return self._stale.is_set() or self._too_old()

    @property
    def pause_wanted(self) -> bool:
        """Whether the job's owner asked to pause it."""
        return self._pause.is_set()

    @property
    def timed_out(self) -> bool:
        """Whether the job has run for as long as it may."""
        return self._until is not None and time.monotonic() >= self._until

    def check(self) -> None:
        """Raise LeaseLost if the job is not ours any more."""
        if self._stale.is_set():
            raise LeaseLost(f"the job {self.job_id} was cancelled or taken over")
        if self._too_old():
            raise LeaseLost(f"the lease on {self.job_id} could not be renewed in time")

    def check_all(self) -> None:
        """Raise LeaseLost, JobTimedOut, WorkerStopping if this worker is being stopped, or JobPaused."""
        self.check()
        # Before the other ends: a job that is out of time must not return to the queue because its worker stops in the
        # same moment.
        if self.timed_out:
            raise JobTimedOut
        if self._stop.is_set():
            raise WorkerStopping
        if self.pause_wanted:
            raise JobPaused

    @contextmanager
    def open_transaction(self, **values: Any) -> Generator[Session, None, None]:
        """Open a transaction that holds only while the lease is ours; it renews the lease and sets columns.

        Raises StaleLease, or Unavailable.
        """
        began = time.monotonic()
        try:
            with self._db.write() as session:
                # The renewal is the fence of the transaction: it locks the job's row, so no takeover can commit
                # between this check and the block's writes.
                if not self._rows.renew_lease(
                    session,
                    self.job_id,
                    self.token,
                    lease_seconds=self._settings.lease_seconds,
                    **values,
                ):
                    raise StaleLease(self.job_id)
                yield session
        except StaleLease:
            self._stale.set()
            raise
        # The time before the transaction began, for the reason given in `__init__`; and only after its commit.
        self._renewed = began

    def report_progress(self, message: str, once_key: str, *, level: str = "info") -> None:
        """Write an event of the job. Raises LeaseLost."""

        def write_event() -> None:
            with self.open_transaction() as session:
                # With the token, so that each attempt may say once what it waits for.
                once = f"{once_key}:{self.token}"
                repository.add_event(session, self.job_id, message, once_key=once, level=level)

        self.retry_while_database_is_down(write_event)

    def _too_old(self) -> bool:
        return time.monotonic() - self._renewed > self._settings.lease_seconds * SAFE_SHARE

    def _renew_until_closed(self) -> None:
        while not self._closed.wait(self._settings.poll_seconds):
            try:
                self._look_once()
            except StaleLease:
                self._stale.set()
                return
            except Unavailable as error:
                log.warning("%s: the lease could not be renewed: %s", self.job_id, error.message)
            except Exception:  # whatever it is, the next look may succeed, and the lease's clock runs on
                log.exception("%s: the lease could not be renewed", self.job_id)

    def _look_once(self) -> None:
        if time.monotonic() - self._renewed >= self._settings.heartbeat_seconds:
            # A renewal that succeeds proves as well that the job is still ours; the pause is read at the next look.
            with self.open_transaction():
                return
        with self._db.read() as session:
            # A plain read between renewals: a cancel or a pause is noticed within the poll interval without a write.
            pause_wanted = self._rows.pause_wanted(session, self.job_id, self.token)
        if pause_wanted is None:
            raise StaleLease(self.job_id)
        (self._pause.set if pause_wanted else self._pause.clear)()
