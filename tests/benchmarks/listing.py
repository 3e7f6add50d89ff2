"""Lists of 100,000 objects: what page 10,000 costs against page 1, over HTTP, on each database.

Pages of ten, in turns, so that a slow moment of the machine meets both. `make bench` runs it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any
from urllib.parse import quote

import httpx

from tests.benchmarks.measuring import Grid, Outcome, Spread, at_least, output_options, show
from tests.fixtures.many import RARE, seed_lists
from tests.fixtures.roles import KINDS, Kind, running_roles

SIZE = 10
_EVENTS = f"/v1/fine_tuning/jobs/ftjob-{0:024}/events"
_COMMON, _RARE = (quote(value) for value in ("队0", "是"))
LISTS: dict[str, tuple[str, str, int, int]] = {
    "jobs": ("/v1/fine_tuning/jobs", "ftjob-", 1, 0),
    "jobs, half of them by metadata": (f"/v1/fine_tuning/jobs?metadata[team]={_COMMON}", "ftjob-", 2, 0),
    "jobs, few of them by metadata": (f"/v1/fine_tuning/jobs?metadata[rare]={_RARE}", "ftjob-", RARE, 2),
    "jobs without metadata": ("/v1/fine_tuning/jobs?metadata=null", "ftjob-", RARE, 1),
    "files": ("/v1/files", "file-", 1, 0),
    "events of a job": (_EVENTS, "ftevent-", 1, 0),
}
"""By name: the address, the ids' prefix, and which objects are in the list: one in so many, from which on."""


def options_parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.listing", description=__doc__)
    parser.add_argument("--objects", type=at_least(20 * RARE), default=100_000, help="jobs, files and events (100,000)")
    parser.add_argument("--repeats", type=at_least(10), default=200, help="times that each page is asked for (200)")
    parser.add_argument("--database", choices=KINDS, action="append", help="one database only")
    output_options(parser)
    return parser


def benchmark(options: argparse.Namespace) -> Outcome:
    """Fill each database and turn pages."""
    found = {kind: _measure(kind, options) for kind in options.database or KINDS}
    rows = [_row(kind, name, times) for kind, lists in found.items() for name, times in lists.items()]
    title = (
        f"{options.objects:,} objects, pages of {SIZE}: ms, median (10th to 90th percentile) of {options.repeats} each"
    )
    columns = ("list", "first page", "last page", "its number", "ratio of medians")
    return Outcome((Grid(title, columns, tuple(rows)),), (), found)


def _measure(kind: Kind, options: argparse.Namespace) -> dict[str, Any]:
    with running_roles(kind) as roles:
        seed_lists(roles.context.db, roles.project_id, options.objects)
        with httpx.Client(base_url=roles.url, headers={"Authorization": f"Bearer {roles.key}"}, timeout=60) as client:
            return {name: _turn(client, name, options) for name in LISTS}


def _turn(client: httpx.Client, name: str, options: argparse.Namespace) -> dict[str, Any]:
    path, prefix, every, start = LISTS[name]
    count = len(range(start, options.objects, every))
    address = f"{path}{'&' if '?' in path else '?'}limit={SIZE}"
    numbers = range(start, options.objects, every)
    pages = {"first": address, "last": f"{address}&after={prefix}{numbers[SIZE]:024}"}
    expected = {"first": numbers[-1], "last": numbers[SIZE - 1]}
    times: dict[str, list[float]] = {page: [] for page in pages}
    for _ in range(options.repeats + 5):
        for page, url in pages.items():
            began = time.perf_counter()
            answer = client.get(url)
            times[page].append((time.perf_counter() - began) * 1000)
            data = answer.json()["data"]
            assert (len(data), int(data[0]["id"][-24:])) == (SIZE, expected[page]), answer.text
    return {"pages": -(-count // SIZE)} | {page: values[5:] for page, values in times.items()}


def _row(kind: str, name: str, result: dict[str, Any]) -> tuple[str, ...]:
    first, last = (_spread(result[page]) for page in ("first", "last"))
    ratio = f"{last.median / first.median:.2f}"
    return (f"{kind}: {name}", first.shown(2), last.shown(2), f"{result['pages']:,}", ratio)


def _spread(values: list[float]) -> Spread:
    """Return the median with the 10th and the 90th percentile: one hiccup of the machine is no spread."""
    ordered = sorted(values)
    tenth = len(ordered) // 10
    return Spread.of(ordered[tenth : len(ordered) - tenth])


def main() -> None:
    """Measure and show."""
    options = options_parser().parse_args()
    show(benchmark(options), options)


if __name__ == "__main__":
    main()
