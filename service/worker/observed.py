"""What metrics, logs and traces say of an attempt: its claim, its progress, the phases of its trainer."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from service.kit import metrics, tracing
from service.kit.log import set_subject
from service.tables.jobs import JobRow
from trainer.contract import events


def record_claim(job: JobRow, *, since: float) -> None:
    """Record a claim that began at `since` by `time.monotonic()`; from here on each line of the log names the job."""
    set_subject(job.id, job.lease_token)
    now, facts = time.time(), {"burnish.job.id": job.id, "burnish.job.attempt": job.lease_token}
    if job.queued_at is not None and job.started_at is not None:
        metrics.QUEUE_SECONDS.observe(max(job.started_at - job.queued_at, 0.0))
        tracing.record_span("wait in queue", job.queued_at, job.started_at, facts, parent=job.traceparent)
    tracing.record_span("claim", now - (time.monotonic() - since), now, facts, parent=job.traceparent)


@contextmanager
def observe_attempt(job: JobRow) -> Generator[None]:
    """Make the block the span of an attempt, and time it."""
    facts = {"burnish.job.id": job.id, "burnish.job.attempt": job.lease_token}
    with (
        metrics.BUSY.track_inprogress(),
        metrics.ATTEMPT_SECONDS.time(),
        tracing.span("attempt", facts, parent=job.traceparent, kind="consumer"),
    ):
        yield


class AttemptProgress:
    """Follows one trainer's events, once each, in the context of the span that runs it.

    The trainer exports nothing itself: its phases become spans here, with its own times.
    """

    def __init__(self) -> None:
        self._tokens: int | None = None
        self._phase: events.PhaseEvent | None = None
        self._last = 0.0

    def add_events(self, batch: Sequence[events.Event]) -> None:
        """Take events that are in the database now."""
        for event in batch:
            self._last = max(self._last, event.time)
            metrics.RELAY_SECONDS.observe(max(time.time() - event.time, 0.0))
            if isinstance(event, events.StepEvent):
                self._count_step(event)
            elif isinstance(event, events.PhaseEvent):
                self.end_phase(at=event.time)
                self._phase = event

    def end_phase(self, *, at: float | None = None) -> None:
        """End the phase, at its last event if no time is given."""
        phase, self._phase = self._phase, None
        if phase is not None:
            tracing.record_span(phase.phase, phase.time, at or self._last)

    def _count_step(self, event: events.StepEvent) -> None:
        metrics.TRAINING_STEPS.inc()
        # Tokens are counted as a sum: what was before an attempt's first step, another attempt counted.
        before = self._tokens if self._tokens is not None else (0 if event.step == 1 else event.tokens_seen)
        metrics.TRAINING_TOKENS.inc(max(event.tokens_seen - before, 0))
        self._tokens = event.tokens_seen
