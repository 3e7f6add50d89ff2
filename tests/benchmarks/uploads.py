"""A large upload through the real API: how fast, and how much memory the API's process takes.

In one stream and in parts, each to a server of its own, against a program that copies the same file to the same disk
and hashes it on the way. `make bench` runs it.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from burnish import Burnish
from burnish.resources import files
from tests.benchmarks.dataset_check import make_row
from tests.benchmarks.measuring import Grid, Outcome, Spread, at_least, in_turns, output_options, show
from tests.fixtures.processes import running_server

CHUNK = 1 << 20
COPY = "copy and SHA-256"


def options_parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.uploads", description=__doc__)
    parser.add_argument("--megabytes", type=at_least(1), default=2000, help="size of the file (2000)")
    parser.add_argument("--repeats", type=at_least(3), default=3, help="runs of each road (3)")
    output_options(parser)
    return parser


def benchmark(options: argparse.Namespace) -> Outcome:
    """Make the file, send it on each road in turns and compare."""
    with tempfile.TemporaryDirectory(prefix="burnish-benchmark-") as name:
        folder = Path(name)
        source = _write(folder / "large.jsonl", options.megabytes * 1_000_000)
        roads: dict[str, Callable[[], dict[str, Any]]] = {
            COPY: partial(_copy, source, folder / "copy"),
            "upload in one stream": partial(_upload, source, folder, in_parts_from=1 << 62),
            "upload in parts": partial(_upload, source, folder, in_parts_from=1),
        }
        found = in_turns(list(roads), options.repeats, lambda road: roads[road]())
    return Outcome((_grid(found, options),), (), {"runs": found})


def _write(path: Path, size: int) -> Path:
    dice = random.Random(7)
    block = b"".join(make_row(1300, dice) + b"\n" for _ in range(2000))
    with path.open("wb") as file:
        for _ in range(max(1, round(size / len(block)))):
            file.write(block)
    return path


def _copy(source: Path, target: Path) -> dict[str, Any]:
    began, digest = time.perf_counter(), hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
    seconds = time.perf_counter() - began
    target.unlink()
    return {"speed": source.stat().st_size / 1e6 / seconds}


def _upload(source: Path, folder: Path, *, in_parts_from: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as data:
        limit = str(2 * source.stat().st_size)
        with (
            running_server(Path(data) / "data", preloaded=False, BURNISH_MAX_FILE_BYTES=limit) as server,
            server.client() as client,
        ):
            (api,) = server.find("api")
            before, watch = api.memory_info().rss, _Peak(api)
            usual, files.IN_PARTS_FROM = files.IN_PARTS_FROM, in_parts_from
            began = time.perf_counter()
            try:
                with watch:
                    _send(client, source)
            finally:
                files.IN_PARTS_FROM = usual
            seconds = time.perf_counter() - began
    return {
        "speed": source.stat().st_size / 1e6 / seconds,
        "rss_before_mib": before / 2**20,
        "rss_peak_mib": watch.bytes / 2**20,
    }


def _send(client: Burnish, source: Path) -> None:
    assert client.files.create(file=source).bytes == source.stat().st_size


class _Peak:
    """The largest resident memory of a process while the block runs, looked at every 20 ms."""

    def __init__(self, process: psutil.Process) -> None:
        self.bytes = 0
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.bytes = max(self.bytes, self._process.memory_info().rss)


def _grid(found: dict[str, list[Any]], options: argparse.Namespace) -> Grid:
    floor = Spread.of([run["speed"] for run in found[COPY]]).median

    def shown(runs: list[Any], field: str) -> str:
        return Spread.of([run[field] for run in runs]).shown() if field in runs[0] else "—"

    rows = [
        (
            road,
            shown(runs, "speed"),
            f"{Spread.of([run['speed'] for run in runs]).median / floor:.2f}",
            shown(runs, "rss_before_mib"),
            shown(runs, "rss_peak_mib"),
        )
        for road, runs in found.items()
    ]
    columns = ("road", "MB/s", f"ratio to {COPY}", "API's memory before, MiB", "API's peak, MiB")
    title = f"A file of {options.megabytes} MB: median (smallest to largest) of {options.repeats} runs each"
    return Grid(title, columns, tuple(rows))


def main() -> None:
    """Measure and show."""
    options = options_parser().parse_args()
    show(benchmark(options), options)


if __name__ == "__main__":
    main()
