"""Refused calls in the audit log: the first of a kind at once, and those that follow as one entry a minute.

Whoever has a key can be refused hundreds of times a second, and no entry is ever deleted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from service.audit import repository
from service.audit.actions import action_of
from service.kit.call import CALL, ApiCall
from service.kit.db import Database

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
_MOST_KEPT = 320
"""How many characters of a path's parameter are kept until they are written."""


@dataclass(frozen=True)
class _RefusalKind:
    """What makes two refusals one entry."""

    key_id: str
    type: str
    status: int


@dataclass
class _RefusalSeries:
    """The refusals of a kind that no entry has yet, the last of them in full."""

    due_at: float
    last: ApiCall
    count: int = 0


class RefusalLog:
    """Counts the refused calls of this process and writes entries of them; `window` is in seconds.

    Any thread may use it.
    """

    def __init__(
        self,
        db: Database,
        *,
        window: float = 60.0,
        most_kinds: int = 2000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.window = window
        self._db, self._most, self._clock = db, most_kinds, clock
        self._series: dict[_RefusalKind, _RefusalSeries] = {}
        self._lock = threading.Lock()

    def count_refusal(self, call: ApiCall, status: int) -> bool:
        """Count a call that was refused or went wrong; `status` is the answer's. Return whether to call `write_due`."""
        action = action_of(call)
        key_id = call.key_id
        if action is None or key_id is None or call.unrecorded:
            return False
        call.recorded = True
        call = replace(call, params={name: value[:_MOST_KEPT] for name, value in call.params.items()})
        now = self._clock()
        with self._lock:
            series = self._series.setdefault(_RefusalKind(key_id, action.type, status), _RefusalSeries(now, call))
            series.count += 1
            series.last = call
            # Too many kinds at once: all are made due, so that memory stays bounded.
            if len(self._series) > self._most:
                for counted_series in self._series.values():
                    counted_series.due_at = now
            return series.due_at <= now

    def write_due(self, *, everything: bool = False) -> None:
        """Write an entry of each kind that is due. A failure is only logged, and tried again."""
        due_refusals = self._take_due(everything=everything)
        if not due_refusals:
            return
        # The transaction is not part of the call that is being served, if there is one.
        token = CALL.set(None)
        try:
            with self._db.write() as session:
                for kind, last, count in due_refusals:
                    repository.add_refusals(session, last, type_=kind.type, status=kind.status, count=count)
        except Exception as error:  # noqa: BLE001 - the caller gets the answer that was decided, whatever fails here
            _log.error(
                "%d refused calls could not be written to the audit log: %s", sum(t[2] for t in due_refusals), error
            )
            # Counted again rather than lost: the next pass tries once more.
            self._put_back(due_refusals)
        finally:
            CALL.reset(token)

    def _take_due(self, *, everything: bool) -> list[tuple[_RefusalKind, ApiCall, int]]:
        now = self._clock()
        due_refusals: list[tuple[_RefusalKind, ApiCall, int]] = []
        with self._lock:
            for kind, series in list(self._series.items()):
                if series.due_at > now and not everything:
                    continue
                if series.count:
                    due_refusals.append((kind, series.last, series.count))
                    series.due_at, series.count = now + self.window, 0
                else:
                    del self._series[kind]  # a whole window without one: the next is a first one again
        return due_refusals

    def _put_back(self, unwritten: list[tuple[_RefusalKind, ApiCall, int]]) -> None:
        with self._lock:
            for kind, last, count in unwritten:
                series = self._series.setdefault(kind, _RefusalSeries(0.0, last))
                series.count += count
                series.due_at = self._clock() + _RETRY_SECONDS
