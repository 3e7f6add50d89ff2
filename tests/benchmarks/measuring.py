"""What the benchmarks share: fresh child processes in turns, medians with their spread, and tables."""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Spread:
    """A median of repeats with the smallest and the largest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarize at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def shown(self, digits: int = 0) -> str:
        """Return `median (low to high)`."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


@dataclass(frozen=True)
class Grid:
    """A table as text, for the terminal and for Markdown. The first column is on the left, the others on the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def print(self) -> None:
        """Show the table on the terminal."""
        table = Table(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        Console().print(table)

    def markdown(self) -> str:
        """Return the table in Markdown, its title in front."""
        lines = [self.columns, ("---", *["---:"] * (len(self.columns) - 1)), *self.rows]
        return f"{self.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@dataclass(frozen=True)
class Outcome:
    """A benchmark's result: tables and sentences for people, `data` with every single measurement for programs."""

    grids: tuple[Grid, ...]
    notes: tuple[str, ...]
    data: dict[str, Any]

    def markdown(self) -> str:
        """Return tables and notes in Markdown."""
        notes = "\n".join(f"- {note}" for note in self.notes)
        return "\n".join([*(grid.markdown() for grid in self.grids), notes]) + "\n"


def run_child(module: str, settings: Any) -> dict[str, Any]:
    """Run `python -m MODULE SETTINGS_JSON` in a fresh process and return the JSON of its last line of output.

    Raises SystemExit with the end of its errors where it fails.
    """
    command = [sys.executable, "-m", module, json.dumps(asdict(settings))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    child = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=environment)
    if child.returncode:
        raise SystemExit(f"{module} failed with exit code {child.returncode}:\n{child.stderr[-3000:]}")
    return json.loads(child.stdout.strip().splitlines()[-1])


def in_turns(names: Sequence[str], repeats: int, measure: Callable[[str], dict[str, Any]]) -> dict[str, list[Any]]:
    """Measure each program once a round (A B A B …), so that a slow minute of the machine meets all of them."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    for number in range(repeats):
        for name in names:
            print(f"round {number + 1} of {repeats}: {name}", file=sys.stderr, flush=True)
            found[name].append(measure(name))
    return found


def peak_mib() -> float:
    """Return this process's peak resident memory in MiB, mapped files included."""
    status = Path("/proc/self/status")
    if status.exists():
        # The kernel's ru_maxrss may begin with the parent's; VmHWM is of this program alone.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


class Bystanders:
    """How much of the machine's processor time other processes took since this object was made."""

    def __init__(self) -> None:
        self._start = self._read()

    def share(self) -> float:
        """Return the share of all cores' time, 0 to 1."""
        wall, others = (now - then for now, then in zip(self._read(), self._start, strict=True))
        return max(0.0, others / (wall * (psutil.cpu_count() or 1)))

    @staticmethod
    def _read() -> tuple[float, float]:
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        busy = sum(machine) - machine.idle - getattr(machine, "iowait", 0.0)
        return time.perf_counter(), busy - own.user - own.system


def quiet_note(found: dict[str, list[Any]]) -> str:
    """Say how quiet the machine was, so that a disturbed measurement is seen as one."""
    worst = max(result["others_share"] for results in found.values() for result in results)
    verdict = "quiet enough" if worst <= 0.05 else "NOT quiet: measure again on an idle machine"
    return f"Other processes took at most {worst:.0%} of the processors' time during a measurement ({verdict})."


def output_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every benchmark that say where results go."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every single measurement as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables as Markdown")


def show(outcome: Outcome, options: argparse.Namespace) -> None:
    """Print the outcome, and write the files that were asked for."""
    for grid in outcome.grids:
        grid.print()
    for note in outcome.notes:
        print(f"- {note}")
    if options.json:
        options.json.write_text(json.dumps(outcome.data, indent=1), encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(outcome.markdown(), encoding="utf-8")


def at_least(smallest: int) -> Callable[[str], int]:
    """Return an argparse type: an integer from `smallest` on."""

    def number(text: str) -> int:
        value = int(text)
        if value < smallest:
            raise argparse.ArgumentTypeError(f"must be at least {smallest}")
        return value

    return number
