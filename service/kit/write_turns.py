"""Turns at SQLite's one write lock: in order within a process, and often enough among processes that none starves.

SQLite's own waiting sleeps longer and longer, up to 0.1 s: a writer that has waited for long loses the lock again and
again to those that have just come.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

WAIT_SECONDS = 30.0
"""How long a writer waits, as SQLite's `busy_timeout` has it for everything else."""
_LOOK_SECONDS = (0.001, 0.003)


class WriteTurns:
    """A lock that is given to threads in the order in which they asked for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._owner: int | None = None

    @contextmanager
    def hold(self) -> Generator[None]:
        """Hold the lock for the block. After `WAIT_SECONDS` the block begins without: SQLite says then what is wrong.

        A thread that holds it already continues at once.
        """
        # A block may call code that writes by itself; waiting for the own lock would never end.
        if self._owner == threading.get_ident():
            yield
            return
        turn = self._acquire()
        try:
            yield
        finally:
            if turn:
                self._release()

    def _acquire(self) -> bool:
        with self._lock:
            if self._owner is None:
                self._owner = threading.get_ident()
                return True
            # A queue of events, since `threading.Lock` wakes an arbitrary thread and a busy one can starve.
            wake_event = threading.Event()
            self._waiting.append(wake_event)
        if not wake_event.wait(WAIT_SECONDS):
            with self._lock:
                # Checked under the lock: the turn may have been given in the moment in which the wait ended.
                if not wake_event.is_set():
                    self._waiting.remove(wake_event)
                    return False
        self._owner = threading.get_ident()
        return True

    def _release(self) -> None:
        with self._lock:
            if self._waiting:
                self._owner = 0  # the next one's, who says so itself
                self._waiting.popleft().set()
            else:
                self._owner = None


def begin_immediate(connection: sqlite3.Connection) -> None:
    """Begin a transaction that holds SQLite's write lock; look for it every few milliseconds while others hold it.

    Raises sqlite3.OperationalError if it is not free within `WAIT_SECONDS`.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    # SQLite's own waiting sleeps longer and longer, up to 100 ms: against writers that look every few milliseconds it
    # would nearly always come too late.
    connection.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(random.uniform(*_LOOK_SECONDS))  # noqa: S311 - so that two processes do not keep step
    finally:
        connection.execute(f"PRAGMA busy_timeout={WAIT_SECONDS * 1000:.0f}")
