"""Tells, in a thread of its own, that this worker lives and what it has."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from types import TracebackType
from typing import Self

from service.context import Context
from service.kit.errors import Unavailable
from service.workers import repository
from service.workers.capacity import Capacity

log = logging.getLogger(__name__)


class WorkerPresence:
    """A context manager: the worker is in SQL from its start to its end, and a while longer if it is killed."""

    def __init__(self, context: Context, *, name: str, capacity: Capacity) -> None:
        self.worker_id = f"{name[:32]}.{os.getpid()}.{secrets.token_hex(4)}"
        self._context = context
        self._name = name
        self._capacity = capacity
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report_until_ended, name="presence", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(self._context.settings.heartbeat_seconds)
        try:
            with self._context.db.write() as session:
                repository.remove_worker(session, self.worker_id)
        except Unavailable as unavailable:
            log.warning("This worker's row stays until it is old: %s", unavailable.message)

    def _report_until_ended(self) -> None:
        while not self._ended.is_set():
            self._report_presence()
            self._ended.wait(self._context.settings.heartbeat_seconds)

    def _report_presence(self) -> None:
        try:
            with self._context.db.write() as session:
                repository.report_worker(session, self.worker_id, name=self._name, capacity=self._capacity)
        except Unavailable as error:
            log.warning("Could not record this worker's heartbeat: %s", error.message)
        except Exception:  # whatever it is, the next report may succeed
            log.exception("Could not record this worker's heartbeat")
