"""Every metric of every process, and the small server that Prometheus reads them from.

Names follow Prometheus's conventions. Labels are few and bounded: no id, no name that a user chose. Each process shows
the metrics of its own role alone; docs/observability.md has them all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.metrics import MetricWrapperBase

from service.kit.settings import Settings, SettingsError
from service.kit.version import VERSION

# When a series began: as many again, and nobody asks for them.
disable_created_metrics()

M = TypeVar("M", bound=MetricWrapperBase)


@dataclass(frozen=True)
class Declared:
    """A metric with what the documentation says of it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    roles: tuple[str, ...]
    metric: MetricWrapperBase


DECLARED: list[Declared] = []
_ALL = "api controller worker engine"
_QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)


def _declare_metric(kind: type[M], name: str, text: str, *labels: str, of: str, buckets: Sequence[float] = ()) -> M:
    more: dict[str, Any] = {"buckets": buckets} if buckets else {}
    metric = kind(name, text, labels, registry=None, **more)
    DECLARED.append(Declared(name, kind.__name__.lower(), labels, tuple(of.split()), metric))
    return metric


BUILD = _declare_metric(Gauge, "burnish_build_info", "1, with the version of the process.", "version", "role", of=_ALL)
DATABASE_ERRORS = _declare_metric(
    Counter, "burnish_database_errors_total", "Transactions that found the database away.", of=_ALL
)
STORAGE_CALLS = _declare_metric(
    Counter, "burnish_storage_calls_total", "Calls of the blob store by their outcome.", "operation", "outcome", of=_ALL
)

REQUESTS = _declare_metric(
    Counter, "burnish_requests_total", "Requests answered, by route template.", "route", "method", "status", of="api"
)
REQUEST_SECONDS = _declare_metric(
    Histogram, "burnish_request_seconds", "Time to a whole answer.", "route", "method", of="api", buckets=_QUICK
)
REQUESTS_IN_FLIGHT = _declare_metric(
    Gauge, "burnish_requests_in_flight", "Requests being served, streams too.", of="api"
)
OPEN_CONNECTIONS = _declare_metric(Gauge, "burnish_open_connections", "Connections that are open.", of="api")
CONNECTIONS_REFUSED = _declare_metric(
    Counter, "burnish_connections_refused_total", "Connections refused because too many were open.", of="api"
)
UPLOAD_BYTES = _declare_metric(Counter, "burnish_upload_bytes_total", "Bytes of files and parts received.", of="api")
DOWNLOAD_BYTES = _declare_metric(Counter, "burnish_download_bytes_total", "Bytes of files and results sent.", of="api")
RATE_LIMITED = _declare_metric(Counter, "burnish_rate_limited_total", "Requests refused for a rate.", "kind", of="api")
CHAT_TOKENS = _declare_metric(Counter, "burnish_chat_tokens_total", "Tokens of answered chats.", "kind", of="api")

JOBS = _declare_metric(Gauge, "burnish_jobs", "Jobs that have not ended, by state.", "state", of="controller")
QUEUE_DEPTH = _declare_metric(
    Gauge, "burnish_queue_depth", "Queued jobs by priority and by what keeps them.", "priority", "wait", of="controller"
)
QUEUE_AGE = _declare_metric(
    Gauge,
    "burnish_queue_oldest_age_seconds",
    "How long the oldest has been queued.",
    "priority",
    "wait",
    of="controller",
)
EXPORTS = _declare_metric(Gauge, "burnish_exports", "Exports that wait or are being made.", "status", of="controller")
WORKERS = _declare_metric(Gauge, "burnish_workers", "Workers that were heard of within a lease.", of="controller")
HEARTBEAT_AGE = _declare_metric(
    Gauge, "burnish_heartbeat_age_seconds", "Age of the oldest sign of life.", "of", of="controller"
)
OUTBOX_PENDING = _declare_metric(Gauge, "burnish_outbox_pending", "Effects still to come.", "topic", of="controller")
OUTBOX_LAG = _declare_metric(
    Gauge, "burnish_outbox_lag_seconds", "How long the oldest effect that is due has waited.", "topic", of="controller"
)
MEASURED = _declare_metric(
    Gauge, "burnish_state_timestamp_seconds", "When the gauges of the database's state were read.", of="controller"
)
LEASES_EXPIRED = _declare_metric(
    Counter, "burnish_leases_expired_total", "Leases that their worker let expire.", "kind", of="controller"
)
WEBHOOK_ATTEMPTS = _declare_metric(
    Counter, "burnish_webhook_attempts_total", "Tries to deliver a webhook.", "outcome", of="controller"
)
WEBHOOK_SECONDS = _declare_metric(
    Histogram, "burnish_webhook_attempt_seconds", "Time of a try.", of="controller", buckets=_QUICK
)
STEP_FAILURES = _declare_metric(
    Counter, "burnish_step_failures_total", "Failed runs of the controller's steps.", "step", of="controller"
)

ATTEMPTS = _declare_metric(
    Counter,
    "burnish_attempts_total",
    "Attempts at jobs that are over, by how they ended.",
    "reason",
    of="api controller worker",
)
JOBS_ENDED = _declare_metric(
    Counter, "burnish_jobs_ended_total", "Jobs that ended, by outcome.", "outcome", of="api controller worker"
)
STALE_WRITES = _declare_metric(
    Counter, "burnish_stale_writes_total", "Writes refused for a lease that is over.", of="controller worker"
)

BUSY = _declare_metric(Gauge, "burnish_worker_busy", "1 while the worker has a job.", of="worker")
QUEUE_SECONDS = _declare_metric(
    Histogram, "burnish_queue_wait_seconds", "How long jobs were queued when claimed.", of="worker", buckets=_SLOW
)
ATTEMPT_SECONDS = _declare_metric(
    Histogram, "burnish_attempt_seconds", "How long attempts took.", of="worker", buckets=_SLOW
)
TRAINING_TOKENS = _declare_metric(
    Counter, "burnish_training_tokens_total", "Tokens that steps trained on.", of="worker"
)
TRAINING_STEPS = _declare_metric(Counter, "burnish_training_steps_total", "Steps of training.", of="worker")
GPU_SECONDS = _declare_metric(
    Counter, "burnish_gpu_seconds_total", "GPUs times seconds that trainers had them.", of="worker"
)
CPU_SECONDS = _declare_metric(Counter, "burnish_cpu_seconds_total", "CPU time of trainers.", of="worker")
RELAY_SECONDS = _declare_metric(
    Histogram,
    "burnish_event_relay_seconds",
    "From a trainer's event to its row in the database.",
    of="worker",
    buckets=_QUICK,
)

CONVERSATIONS = _declare_metric(
    Gauge, "burnish_engine_conversations", "Chats that wait or are being answered.", of="engine"
)
ANSWERS = _declare_metric(Counter, "burnish_engine_answers_total", "Chats by their outcome.", "outcome", of="engine")
ANSWER_SECONDS = _declare_metric(
    Histogram, "burnish_engine_answer_seconds", "Time of a chat with its wait.", of="engine", buckets=(*_QUICK, 60, 300)
)


def registry_of(role: str) -> CollectorRegistry:
    """Return what a process of this role shows: its own metrics, and what every process has (CPU, memory, files)."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    for metric in DECLARED:
        if role in metric.roles:
            registry.register(metric.metric)
    BUILD.labels(VERSION, role).set(1)
    return registry


def serve_metrics(settings: Settings, role: str, name: str) -> None:
    """Serve Prometheus from a thread if the settings name an address. Raises SettingsError.

    A port of 0 is any free one; it is noted in the data folder's `metrics/` for Prometheus's discovery by files.
    """
    if settings.metrics is None:
        return
    host, port = settings.metrics
    try:
        server, _ = start_http_server(port, host, registry_of(role))
    except OSError as error:
        raise SettingsError(
            f"BURNISH_METRICS_ADDRESS: nothing can listen on {host}:{port} ({error.strerror or error}). "
            "Name another address, or `off`."
        ) from error
    if port == 0:
        _write_target_file(settings.data / "metrics", role, name, f"{host}:{server.server_port}")


def _write_target_file(folder: Path, role: str, name: str, address: str) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([{"targets": [address], "labels": {"role": role, "process": name}}]), "utf-8")
    partial.replace(path)


def forget_notes(folder: Path) -> None:
    """Drop the notes that processes of an earlier start left."""
    for path in (folder / "metrics").glob("*.json"):
        with suppress(OSError):
            path.unlink()
