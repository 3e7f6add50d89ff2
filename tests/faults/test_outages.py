"""The API or the database is away while jobs train."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults import ledger
from tests.faults.invariants import check
from tests.faults.proxy import Fault
from tests.faults.report import Report
from tests.faults.scale import FULL, PATIENCE, scaled
from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(PATIENCE)]

AWAY = (0, 20, 60) if FULL else (0, 8)
HARMLESS = 20
"""An outage of so many seconds runs no step twice."""


def test_a_training_outlasts_an_absence_of_the_database_and_the_api(cluster: World, report: Report) -> None:
    cases = [(what, seconds) for seconds in AWAY for what in ("the database", "the API")]
    if not FULL:
        cases = [("the database and the API", seconds) for seconds in AWAY]
    for what, seconds in cases:
        # Longer than the outage: in steps of a second and a half, or of two seconds.
        steps, slowness = (45, 20) if seconds > HARMLESS else (scaled(10, 20), 15) if seconds else (10, 2)
        made = cluster.submit(2, steps=steps, slowness=slowness)
        cluster.wait_for_steps(made, 1)
        _away(cluster, what, seconds)
        recovered = cluster.wait(made)
        entries = cluster.entries(made)
        repeated = ledger.steps_run_twice(entries)
        if seconds <= HARMLESS:
            assert set(ledger.starts(entries).values()) == {1}, cluster.log()
            assert not repeated
        report.add(
            "API or database away during training",
            f"{what} for {seconds} s; 2 jobs in training",
            outcome=f"completed; {sum(map(len, repeated.values()))} steps run twice",
            recovery=recovered,
        )
    assert check(cluster) == {"succeeded": len(cluster.submitted)}


def _away(world: World, what: str, seconds: int) -> None:
    api = world.processes["api"]
    if "API" in what:
        api.held_back = True
        api.send(signal.SIGKILL)
    if "database" in what:
        world.proxies["SQL"].inject(Fault.CUT)
    time.sleep(seconds)
    world.proxies["SQL"].heal()
    api.held_back = False
