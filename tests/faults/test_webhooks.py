"""Receivers that fail, hang, redirect, want no more, ask for patience or drip, with the sender killed meanwhile."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import func, select

from service.kit.outbox import OutboxRow, Topic
from service.tables.webhooks import WebhookEndpointRow
from tests.faults.invariants import check, check_webhooks
from tests.faults.report import Report
from tests.faults.scale import PATIENCE, scaled, wait_until
from tests.faults.world import QUICK, World, running_world

pytestmark = [pytest.mark.faults, pytest.mark.timeout(PATIENCE)]

TAKES = ("ok", "fails-twice", "busy")
REFUSES = ("fails", "hangs", "redirects", "gone", "drips")
TIMEOUT = 2.0
EVENTS = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]


class Receivers:
    """One server with a receiver of each kind; `taken` has the ids of the events that each answered by 2xx."""

    def __init__(self) -> None:
        self.taken: dict[str, set[str]] = defaultdict(set)
        self.seen: Counter[tuple[str, str]] = Counter()
        self.done = threading.Event()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one delivery as the receiver of its path does."""
        kind, event_id = handler.path.strip("/"), handler.headers["webhook-id"]
        handler.rfile.read(int(handler.headers["content-length"]))
        self.seen[kind, event_id] += 1
        first = self.seen[kind, event_id] <= 2
        if kind == "hangs":
            self.done.wait(TIMEOUT * 2)
        elif kind == "drips":
            self._drip(handler)
        elif kind == "fails" or (kind == "fails-twice" and first):
            _send(handler, 500)
        elif kind == "redirects":
            _send(handler, 307, location=handler.path.replace("redirects", "ok"))
        elif kind == "gone":
            _send(handler, 410)
        elif kind == "busy" and first:
            _send(handler, 429, **{"retry-after": "1"})
        else:
            _send(handler, 204)
            self.taken[kind].add(event_id)

    def _drip(self, handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nx-long: " + b"0" * 1000:
                handler.wfile.write(bytes([byte]))
                if self.done.wait(0.2):
                    return


def _send(handler: BaseHTTPRequestHandler, status: int, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("content-length", "0")
    handler.end_headers()


@contextmanager
def _receivers() -> Iterator[tuple[str, Receivers]]:
    kept = Receivers()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):
                kept.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", kept
    finally:
        kept.done.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_every_event_is_delivered_or_listed_as_failed(tmp_path: Path, report: Report) -> None:
    jobs, kills = scaled(3, 40), scaled(3, 15)
    options = {"webhook_delays": (0.3, 0.5, 1.0), "webhook_timeout": TIMEOUT}
    with _receivers() as (url, receivers), running_world(tmp_path, workers=1, pace=QUICK, options=options) as world:
        endpoints = {
            kind: world.request(
                "POST", "/webhook_endpoints", json={"name": kind, "url": f"{url}/{kind}", "event_types": EVENTS}
            ).json()["id"]
            for kind in (*TAKES, *REFUSES)
        }
        job_ids = world.submit(jobs, steps=3)
        for _ in range(kills):
            sent = sum(receivers.seen.values())
            wait_until(lambda sent=sent: sum(receivers.seen.values()) > sent or world.ended(job_ids), what="a delivery")
            time.sleep(0.05)
            world.processes["controller"].send(signal.SIGKILL)
        world.wait(job_ids)
        wait_until(lambda: not _pending(world), what=f"the last delivery\n{world.log()}")
        assert check(world) == {"succeeded": jobs}
        told = {kind: check_webhooks(world, endpoints[kind], receivers.taken[kind]) for kind in endpoints}
        for kind in TAKES:
            assert told[kind] == {"delivered": jobs}, (kind, told[kind])
        for kind in REFUSES:
            assert told[kind].total() <= jobs
            assert not told[kind]["delivered"], (kind, told[kind])
            assert not receivers.taken[kind]
        assert all(told[kind] == {"listed as failed": jobs} for kind in REFUSES if kind != "gone")
        with world.context.db.read() as session:
            query = select(WebhookEndpointRow.name).where(WebhookEndpointRow.disabled_at.is_not(None))
            assert session.scalars(query).all() == ["gone"]
        assert {event for kind, event in receivers.seen if kind == "ok"} == receivers.taken["ok"]
    for kind, count in told.items():
        report.add(
            "webhook receivers that fail, hang, redirect, answer 410, 429, drip; the sender killed",
            f"{kind}; {jobs} events; {kills} kills of the sender",
            outcome=", ".join(f"{number} {what}" for what, number in count.items()),
        )


def _pending(world: World) -> int:
    with world.context.db.read() as session:
        query = select(func.count()).where(OutboxRow.topic == Topic.SEND_WEBHOOK, OutboxRow.done_at.is_(None))
        return session.scalar(query) or 0
