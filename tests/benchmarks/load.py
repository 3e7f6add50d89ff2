"""The API under a steady load: mixed reads and creations at fixed rates, from loopback, on each database.

Requests are sent when their time has come, whether earlier ones were answered or not, and a latency counts from that
time: a server that stalls is not asked less. The controller runs beside the API and checks every job that is created.
`make bench` runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.benchmarks.measuring import Grid, Outcome, at_least, output_options, show
from tests.fixtures.many import seed_lists
from tests.fixtures.plain_http import BadReply, Connections, RequestMaker, quantile
from tests.fixtures.roles import KINDS, Kind, Roles, running_roles

GOAL_MS = 250
_ROWS = (
    b'{"messages":[{"role":"user","content":"Hello"},{"role":"assistant","content":"\xe4\xbd\xa0\xe5\xa5\xbd"}]}\n' * 20
)
_PATIENCE = 30.0


def options_parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load", description=__doc__)
    parser.add_argument("--reads", type=at_least(1), default=200, help="reads a second (200)")
    parser.add_argument("--creates", type=at_least(1), default=20, help="creations a second (20)")
    parser.add_argument("--seconds", type=at_least(1), default=60, help="how long (60)")
    parser.add_argument("--apis", type=at_least(1), default=2, help="processes of the API (2, as `up` runs them)")
    parser.add_argument("--objects", type=at_least(100), default=10_000, help="jobs, files and events there before")
    parser.add_argument("--database", choices=KINDS, action="append", help="one database only")
    output_options(parser)
    return parser


@dataclass(frozen=True)
class Call:
    """One request: what it is called in the results, and its bytes."""

    name: str
    data: bytes


@dataclass
class Seen:
    """What came of the calls: seconds from the time they were due, by name, and statuses."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)

    def note(self, call: Call, status: int, seconds: float) -> None:
        """Add one answer; 0 is the status of a connection that broke."""
        self.seconds.setdefault(call.name, []).append(seconds)
        self.statuses[status] += 1


def benchmark(options: argparse.Namespace) -> Outcome:
    """Load each database in turn."""
    found = {kind: _measure(kind, options) for kind in options.database or KINDS}
    title = (
        f"{options.reads} reads/s and {options.creates} creations/s for {options.seconds} s, with {options.objects:,} "
        f"jobs there before and {options.apis} processes of the API: latency in ms from the time a request was due"
    )
    columns = ("database", "requests", "requests/s", "p50", "p95", "p99", "slowest", "not 200", "database is locked")
    return Outcome(
        (Grid(title, columns, tuple(_row(*item) for item in found.items())), _by_call(found)), _notes(found), found
    )


def _measure(kind: Kind, options: argparse.Namespace) -> dict[str, Any]:
    with running_roles(kind, controller=True, apis=options.apis) as roles:
        seed_lists(roles.context.db, roles.project_id, options.objects)
        calls = _Calls(roles, options.objects)
        asyncio.run(_drive(roles, calls, reads=20, creates=4, seconds=3))  # warm: imports, pools, caches
        psutil.cpu_times_percent()
        seen, wall = asyncio.run(
            _drive(roles, calls, reads=options.reads, creates=options.creates, seconds=options.seconds)
        )
        busy = 100 - psutil.cpu_times_percent().idle
        logs = roles.logs()
    return {
        "latencies": seen.seconds,
        "statuses": {str(status): count for status, count in seen.statuses.items()},
        "wall": wall,
        "busy_percent": busy,
        "locked": logs.count("database is locked"),
        "errors_logged": logs.count(" ERROR "),
    }


class _Calls:
    """Makes up requests of the mix: what an SDK that watches jobs, a dashboard and a script that creates jobs send."""

    def __init__(self, roles: Roles, objects: int) -> None:
        self._roles = roles
        self._maker = RequestMaker.for_url(roles.url, roles.key)
        self._objects = objects
        self._dice = random.Random(7)
        reads: dict[str, tuple[int, Callable[[int], str]]] = {
            "get job": (30, lambda n: f"/v1/fine_tuning/jobs/ftjob-{n:024}"),
            "list jobs": (15, lambda n: f"/v1/fine_tuning/jobs?limit=20&after=ftjob-{max(n, 30):024}"),
            "list jobs by metadata": (10, lambda n: f"/v1/fine_tuning/jobs?limit=20&metadata[team]=%E9%98%9F{n % 2}"),
            "list events": (15, lambda n: f"/v1/fine_tuning/jobs/ftjob-{0:024}/events?limit=20&after=ftevent-{n:024}"),
            "list checkpoints": (5, lambda n: f"/v1/fine_tuning/jobs/ftjob-{n:024}/checkpoints"),
            "get file": (10, lambda n: f"/v1/files/file-{n:024}"),
            "list files": (5, lambda n: f"/v1/files?limit=20&after=file-{n:024}"),
            "list models": (10, lambda _: "/v1/models"),
        }
        self._reads = list(reads.items())
        self._weights = [weight for weight, _ in reads.values()]
        self._file = json.loads(asyncio.run(self._send_one(self._upload())))["id"]

    def read(self) -> Call:
        """Return a read."""
        ((name, (_, path)),) = self._dice.choices(self._reads, self._weights)
        return Call(name, self._maker.request("GET", path(self._dice.randrange(self._objects))))

    def create(self) -> Call:
        """Return a creation: of a job (most often), a file or an upload."""
        (make,) = self._dice.choices((self._job, self._upload, self._announce), (14, 3, 3))
        return make()

    def _job(self) -> Call:
        body = {"model": "tiny", "training_file": self._file, "metadata": {"team": "队0", "run": str(uuid.uuid4())}}
        return Call("create job", self._maker.request("POST", "/v1/fine_tuning/jobs", json.dumps(body).encode()))

    def _announce(self) -> Call:
        body = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 1000, "mime_type": "text/jsonl"}
        return Call("create upload", self._maker.request("POST", "/v1/uploads", json.dumps(body).encode()))

    def _upload(self) -> Call:
        return Call("upload file", self._maker.upload(_ROWS))

    async def _send_one(self, call: Call) -> bytes:
        connections = Connections(self._roles.url)
        reply = await connections.send(call.data)
        connections.close()
        assert reply.status == 200, reply.body
        return reply.body


async def _drive(roles: Roles, calls: _Calls, *, reads: int, creates: int, seconds: int) -> tuple[Seen, float]:
    seen, connections = Seen(), Connections(roles.url)
    # Both kinds spread evenly over time; made before, so that making them costs nothing while it counts.
    due = [(n / reads, calls.read()) for n in range(reads * seconds)]
    due += [((n + 0.5) / creates, calls.create()) for n in range(creates * seconds)]
    due.sort(key=lambda item: item[0])
    began = time.perf_counter()

    async def one(at: float, call: Call) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                status = (await connections.send(call.data)).status
        except (OSError, EOFError, BadReply):  # a timeout is an OSError too
            status = 0
        seen.note(call, status, time.perf_counter() - began - at)

    async with asyncio.TaskGroup() as tasks:
        for at, call in due:
            await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
            tasks.create_task(one(at, call))
    connections.close()
    return seen, time.perf_counter() - began


def _row(kind: str, result: dict[str, Any]) -> tuple[str, ...]:
    latencies = [value for values in result["latencies"].values() for value in values]
    wrong = sum(count for status, count in result["statuses"].items() if status != "200")
    shown = (f"{1000 * quantile(latencies, share):,.1f}" for share in (0.5, 0.95, 0.99, 1))
    return (
        kind,
        f"{len(latencies):,}",
        f"{len(latencies) / result['wall']:.0f}",
        *shown,
        str(wrong),
        str(result["locked"]),
    )


def _by_call(found: dict[Kind, dict[str, Any]]) -> Grid:
    rows = [
        (f"{kind}: {name}", f"{len(values):,}", *(f"{1000 * quantile(values, share):,.1f}" for share in (0.5, 0.99)))
        for kind, result in found.items()
        for name, values in sorted(result["latencies"].items())
    ]
    return Grid("By request, in ms", ("request", "requests", "p50", "p99"), tuple(rows))


def _notes(found: dict[Kind, dict[str, Any]]) -> tuple[str, ...]:
    notes: list[str] = []
    for kind, result in found.items():
        latencies = [value for values in result["latencies"].values() for value in values]
        worst = 1000 * quantile(latencies, 0.99)
        verdict = (
            "met" if worst < GOAL_MS and set(result["statuses"]) == {"200"} and not result["locked"] else "NOT met"
        )
        notes.append(
            f"{kind}: the goal (p99 under {GOAL_MS} ms, every answer 200, no «database is locked») is {verdict}. All "
            f"processors together were busy for {result['busy_percent']:.0f}% of the time, load, service and database "
            f"included; {result['errors_logged']} errors were logged."
        )
    return tuple(notes)


def main() -> None:
    """Measure and show."""
    options = options_parser().parse_args()
    show(benchmark(options), options)


if __name__ == "__main__":
    main()
