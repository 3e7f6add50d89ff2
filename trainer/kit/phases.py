"""The phases of a run: announced as events, timed for the report, and the places where a run may be stopped."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from trainer.contract.events import PhaseEvent, PhaseName
from trainer.kit.errors import Stopped
from trainer.kit.event_sink import EventSink
from trainer.kit.stop import StopFlag


class Phases:
    """Announces and times phases; `seconds` maps a phase's name to what it took."""

    def __init__(self, sink: EventSink, stop: StopFlag) -> None:
        self._sink = sink
        self._stop = stop
        self.seconds: dict[str, float] = {}

    @contextmanager
    def enter(self, phase: PhaseName, message: str) -> Generator[None]:
        """Time the block. Raises Stopped in front of it or after it if the run was asked to stop."""
        self.check_stop()
        self._sink.emit(PhaseEvent(phase=phase, message=message))
        start = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start
        self.check_stop()

    def check_stop(self) -> None:
        """Raise Stopped if the run was asked to stop."""
        if self._stop.raised:
            raise Stopped
