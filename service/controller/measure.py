"""Step: what the gauges show of the database's state is read, in one look, every few seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import product

from prometheus_client import Gauge

from service.context import Context
from service.controller import statistics
from service.controller.statistics import KindCount
from service.kit import metrics
from service.kit.outbox import Topic
from service.queue.base import JobIdQueue


def set_gauges(context: Context, _queue: JobIdQueue) -> None:
    """Set the gauges. Raises Unavailable: then they keep their old values, and the time of the last update shows it."""
    lease = context.settings.lease_seconds
    with context.db.read() as session:
        jobs, queue = statistics.count_jobs(session), statistics.count_queued_jobs(session)
        exports, outbox = statistics.count_exports(session), statistics.count_effects(session)
        ages = statistics.heartbeat_ages(session, lease_seconds=lease)
        workers = statistics.living_workers(session, within=lease)
    _set_kinds([(state,) for state in statistics.UNFINISHED], jobs, metrics.JOBS)
    _set_kinds(product(statistics.PRIORITIES, statistics.WAITS), queue, metrics.QUEUE_DEPTH, metrics.QUEUE_AGE)
    _set_kinds([(status,) for status in statistics.UNFINISHED_EXPORTS], exports, metrics.EXPORTS)
    _set_kinds([(topic,) for topic in Topic], outbox, metrics.OUTBOX_PENDING, metrics.OUTBOX_LAG)
    for of, age in ages.items():
        metrics.HEARTBEAT_AGE.labels(of).set(age)
    metrics.WORKERS.set(workers)
    metrics.MEASURED.set(time.time())


def _set_kinds(
    kinds: Iterable[tuple[str, ...]], kind_counts: Iterable[KindCount], count: Gauge, age: Gauge | None = None
) -> None:
    """Set every kind, those of which there is none too."""
    count_by_kind = {kind_count.kind: kind_count for kind_count in kind_counts}
    for kind in kinds:
        kind_count = count_by_kind.get(tuple(map(str, kind)), KindCount(kind, 0, None))
        count.labels(*kind).set(kind_count.total)
        if age is not None:
            age.labels(*kind).set(max(kind_count.age or 0.0, 0.0))
