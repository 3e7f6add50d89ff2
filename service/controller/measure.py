"""Step: what the gauges show of the database's state is read, in one look, every few seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import product

from prometheus_client import Gauge

from service.context import Context
from service.controller import statistics
from service.controller.statistics import Counted
from service.kit import metrics
from service.kit.outbox import Topic
from service.queue.base import JobQueue


def measure(context: Context, _queue: JobQueue) -> None:
    """Set the gauges. Raises Unavailable: then they keep what they had, and their time tells."""
    lease = context.settings.lease_seconds
    with context.db.read() as session:
        jobs, queue = statistics.jobs(session), statistics.queue(session)
        exports, outbox = statistics.exports(session), statistics.outbox(session)
        ages = statistics.heartbeat_ages(session, lease_seconds=lease)
        workers = statistics.living_workers(session, within=lease)
    _show([(state,) for state in statistics.UNFINISHED], jobs, metrics.JOBS)
    _show(product(statistics.PRIORITIES, statistics.WAITS), queue, metrics.QUEUE_DEPTH, metrics.QUEUE_AGE)
    _show([(status,) for status in statistics.UNFINISHED_EXPORTS], exports, metrics.EXPORTS)
    _show([(topic,) for topic in Topic], outbox, metrics.OUTBOX_PENDING, metrics.OUTBOX_LAG)
    for of, age in ages.items():
        metrics.HEARTBEAT_AGE.labels(of).set(age)
    metrics.WORKERS.set(workers)
    metrics.MEASURED.set(time.time())


def _show(kinds: Iterable[tuple[str, ...]], found: Iterable[Counted], count: Gauge, age: Gauge | None = None) -> None:
    """Set every kind, those of which there is none too."""
    known = {counted.kind: counted for counted in found}
    for kind in kinds:
        counted = known.get(tuple(map(str, kind)), Counted(kind, 0, None))
        count.labels(*kind).set(counted.total)
        if age is not None:
            age.labels(*kind).set(max(counted.age or 0.0, 0.0))
