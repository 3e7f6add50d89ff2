"""The right to continue: what long work on models and blobs checks on its way, and how it waits."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TypeVar

from service.kit.errors import Unavailable
from service.staging.errors import WorkerStopping
from service.storage.errors import StorageUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

_STORAGE_TRIES = 5


class WorkHold(ABC):
    """A lease on a job, or `UnleasedHold`."""

    def __init__(self, subject: str, *, stop: threading.Event, poll_seconds: float) -> None:
        self._subject = subject
        self._stop = stop
        self._poll_seconds = poll_seconds

    @abstractmethod
    def check(self) -> None:
        """Raise if the work must stop."""

    @abstractmethod
    def check_all(self) -> None:
        """Raise as `check` does, or if this is a good place to stop."""

    @abstractmethod
    def report_progress(self, message: str, once_key: str, *, level: str = "info") -> None:
        """Let the owner know what takes long, once a key."""

    def pause(self, seconds: float) -> None:
        """Wait a moment; return early if the process is told to stop meanwhile."""
        self._stop.wait(seconds)

    def retry_while_database_is_down(self, action: Callable[[], T]) -> T:
        """Repeat `action` while the database is away, as long as `check` allows."""
        while True:
            self.check()
            try:
                return action()
            except Unavailable as error:
                log.warning("%s: %s Trying again.", self._subject, error.message)
                # No limit of tries: `check` raises once the lease is lost, and until then the work done so far is
                # worth the wait.
                time.sleep(self._poll_seconds)

    def retry_while_storage_is_down(self, action: Callable[[], T]) -> T:
        """Repeat `action` a few times, ever later, while the blob store is away. Raises StorageUnavailable."""
        for attempt in range(1, _STORAGE_TRIES):
            self.check()
            try:
                return action()
            except StorageUnavailable as error:
                log.warning("%s: %s Trying again.", self._subject, error)
                # In small steps, so that a lost lease ends the wait at once.
                for _ in range(2**attempt):
                    self.check()
                    time.sleep(self._poll_seconds)
        # The last try is outside the loop: its error reaches the caller.
        return action()

    def check_between_chunks(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass chunks on as long as `check` allows."""
        # A file may take minutes: a worker that lost its lease must not transfer the rest of it.
        for chunk in chunks:
            self.check()
            yield chunk


class UnleasedHold(WorkHold):
    """Work that belongs to no job: it continues until the process is told to stop."""

    def check(self) -> None:
        """Raise WorkerStopping if the process is being stopped."""
        if self._stop.is_set():
            raise WorkerStopping

    def check_all(self) -> None:
        """Raise WorkerStopping if the process is being stopped."""
        self.check()

    def retry_while_database_is_down(self, action: Callable[[], T]) -> T:
        """Try once: whoever waits for the work can ask again. Raises Unavailable."""
        return action()

    def report_progress(self, message: str, once_key: str, *, level: str = "info") -> None:  # noqa: ARG002 - the log takes all
        """Write it into the log."""
        log.info("%s: %s", self._subject, message)
