"""How much of the suite runs: `make faults` sets BURNISH_FAULTS=full, `make test` runs the short form."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from typing import Any

from tests.fixtures import processes

FULL = os.environ.get("BURNISH_FAULTS") == "full"
PATIENCE = 7200 if FULL else 900
"""Seconds that one test may take on a busy machine."""


def wait_until(condition: Callable[[], Any], *, what: str, seconds: float = PATIENCE / 3) -> Any:
    """Return the condition's first true value, with the patience that a busy machine asks for."""
    return processes.wait_until(condition, what=what, seconds=seconds)


def scaled(short: int, full: int) -> int:
    """Return the count for this run."""
    return full if FULL else short


def new_seed() -> int:
    """Return the seed of a test: BURNISH_FAULTS_SEED where it is set, else a new one. A failed test shows it."""
    given = os.environ.get("BURNISH_FAULTS_SEED")
    seed = int(given) if given else random.SystemRandom().randrange(1 << 31)
    print(f"BURNISH_FAULTS_SEED={seed}", file=sys.stderr)
    return seed
