"""What the trainers really did: a line a step, with the attempt and the time of the machine's one monotonic clock."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One step of one attempt; step 0 is the start of its trainer."""

    job: str
    attempt: int
    step: int
    pid: int
    at: float


def note(path: Path, job: str, attempt: int, step: int) -> None:
    """Append a line in one write."""
    line = json.dumps([job, attempt, step, os.getpid(), time.monotonic()]) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read(path: Path) -> Sequence[Entry]:
    """Return all lines."""
    if not path.exists():
        return []
    return [Entry(*json.loads(line)) for line in path.read_text().splitlines()]


def starts(entries: Sequence[Entry]) -> Counter[str]:
    """Return how many trainers each job had."""
    return Counter(entry.job for entry in entries if entry.step == 0)


def steps_run_twice(entries: Sequence[Entry]) -> dict[str, list[int]]:
    """Return, by job, the steps that were run more than once."""
    counted: dict[str, Counter[int]] = defaultdict(Counter)
    for entry in entries:
        if entry.step:
            counted[entry.job][entry.step] += 1
    repeated = {job: [step for step, count in steps.items() if count > 1] for job, steps in counted.items()}
    return {job: steps for job, steps in repeated.items() if steps}
