"""How long `burnish` takes from its start to its end, beside a Python that does nothing.

    python -m tests.benchmarks.cli_startup

RUNS runs of each command, taken in turns, so that whatever else the machine does falls on all alike.
`jobs list` asks a server on loopback that answers at once; its share is in the numbers.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from tests.clients.scripted import Answer, Server, a_job, a_page

RUNS = 15
LIMIT = 0.4
RESULT = Path(__file__).parents[2] / "docs" / "proof" / "cli.md"
BURNISH = Path(sys.executable).with_name("burnish")

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "burnish --help": [str(BURNISH), "--help"],
    "burnish jobs --help": [str(BURNISH), "jobs", "--help"],
    "burnish jobs create --help": [str(BURNISH), "jobs", "create", "--help"],
    "burnish data --help": [str(BURNISH), "data", "--help"],
    "burnish jobs list": [str(BURNISH), "jobs", "list"],
    "burnish jobs list --json": [str(BURNISH), "jobs", "list", "--json"],
}


class Took(NamedTuple):
    """One run: seconds of the clock, and of the processor."""

    clock: float
    processor: float


def run(command: list[str], environment: dict[str, str]) -> Took:
    """Return how long a command took. Raises CalledProcessError."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure() -> dict[str, list[Took]]:
    """Return each run by command."""
    server = Server()
    server.on("GET", "/v1/fine_tuning/jobs", Answer(a_page([a_job()] * 20)))
    threading.Thread(target=server.http.serve_forever, daemon=True).start()
    # As in a person's shell: with bytecode kept.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {**kept, "BURNISH_BASE_URL": server.url, "BURNISH_API_KEY": "k"}
    found: dict[str, list[Took]] = {name: [] for name in COMMANDS}
    for number in range(RUNS + 1):
        for name, command in COMMANDS.items():
            took = run(command, environment)
            if number:  # the first run writes the bytecode
                found[name].append(took)
    server.http.shutdown()
    return found


def page(found: dict[str, list[Took]]) -> str:
    """Return the page of docs/proof."""
    rows = [
        f"| `{name}` | {statistics.median(took.processor for took in runs):.3f} "
        f"| {statistics.median(took.clock for took in runs):.3f} | {min(took.clock for took in runs):.3f} |"
        for name, runs in found.items()
    ]
    return "\n".join(
        [
            "# The command line's start",
            "",
            "From the start of the process to its end. Nothing is loaded before it is needed: the HTTP client,",
            "pydantic, rich and YAML not for help, the datasets for `burnish data` alone. Wanted: under 0.4 s. The",
            "processor's seconds tell about the command; the seconds of the clock, about the machine too.",
            "",
            f"Python {platform.python_version()}, {os.cpu_count()} cores shared with other work, load "
            f"{os.getloadavg()[0]:.1f}; {RUNS} runs, the commands in turns.",
            "",
            "| command | processor, median | clock, median | clock, least |",
            "|---|---|---|---|",
            *rows,
            "",
            "Made by `python -m tests.benchmarks.cli_startup`, a part of `make bench`. What is not loaded is a test.",
            "",
        ]
    )


def main() -> int:
    """Measure, write the page, and tell whether all is quick enough."""
    found = measure()
    RESULT.write_text(page(found), encoding="utf-8")
    print(RESULT.read_text("utf-8"))
    return int(any(statistics.median(took.processor for took in runs) >= LIMIT for runs in found.values()))


if __name__ == "__main__":
    sys.exit(main())
