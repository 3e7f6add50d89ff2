"""Runs steps side by side, each in its thread: what one waits for holds up no other, and an outage ends none."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.kit import metrics
from service.kit.errors import Unavailable
from service.kit.settings import SettingsError
from service.queue.base import QueueUnavailable
from service.storage.errors import StorageError

_log = logging.getLogger(__name__)
OUTAGES = (Unavailable, QueueUnavailable, StorageError)
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0


@dataclass(frozen=True)
class ControllerStep:
    """Something to do again and again, `seconds` after its last end."""

    name: str
    seconds: float
    run: Callable[[], object]
    close: Callable[[], object] | None = None
    """Called in the step's thread at its end."""


class Outages:
    """Who is held up by what, so that an outage is logged once however many steps it stops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held_up: dict[str, type[Exception]] = {}

    def note_failure(self, name: str, error: Exception) -> None:
        """Note that a step failed."""
        kind = type(error)
        metrics.STEP_FAILURES.labels(name).inc()
        with self._lock:
            # By kind: an outage of the database stops ten steps, and is one line in the log.
            new = kind not in self._held_up.values()
            self._held_up[name] = kind
        if not new:
            return
        if isinstance(error, OUTAGES):
            _log.warning("%s Trying again until it does.", error)
        else:
            _log.error("the step %s failed with an unexpected error; trying again", name, exc_info=error)

    def note_recovery(self, name: str) -> None:
        """Note that a step works."""
        with self._lock:
            kind = self._held_up.pop(name, None)
            over = kind is not None and kind not in self._held_up.values()
        if over:
            _log.info("the step %s works again", name)


def run_steps(
    steps: Sequence[ControllerStep], stop: threading.Event, outages: Outages, *, patience: float = 10.0
) -> None:
    """Run all steps until `stop` is set, then give each `patience` seconds to end.

    A thread that is still at work then is left behind: its transaction never commits.
    """
    threads = [
        threading.Thread(target=run_step, args=(step, stop, outages), name=step.name, daemon=True) for step in steps
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        # Bounded: a step may hang in a call to a server that does not answer.
        thread.join(patience)


def run_step(step: ControllerStep, stop: threading.Event, outages: Outages) -> None:
    """Run one step again and again until `stop` is set."""
    try:
        while not stop.is_set():
            run_until_it_works(step, stop, outages)
            stop.wait(step.seconds)
    finally:
        if step.close is not None:
            step.close()


def run_until_it_works(step: ControllerStep, stop: threading.Event, outages: Outages) -> None:
    """Run one step once; after a failure again, longer apart each time, up to half a minute. Raises SettingsError."""
    wait = _FIRST_WAIT
    while not stop.is_set():
        try:
            step.run()
        except SettingsError:
            raise
        except Exception as error:  # noqa: BLE001 - `outages` logs it; the controller outlives every failure
            outages.note_failure(step.name, error)
            stop.wait(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
        else:
            outages.note_recovery(step.name)
            return
