"""Connections to SQL, Valkey and S3 that are cut, half open, slow, or reset."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from tests.faults.invariants import check
from tests.faults.proxy import Fault
from tests.faults.report import Report
from tests.faults.scale import FULL, PATIENCE, scaled
from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(PATIENCE)]

FAULTS = (Fault.CUT, Fault.SILENT, Fault.SLOW, Fault.RESETTING)
TARGETS = ("SQL", "Valkey", "S3")
RECOVERED = 90
"""Seconds from the end of a fault until all is done that waited for it, beyond what that takes without any fault."""


def test_spoiled_connections_lose_no_job_and_are_made_anew(cluster: World, report: Report) -> None:
    alone: list[tuple[str, ...]] = [(target,) for target in TARGETS]
    undisturbed = _one(cluster, (), Fault.NONE, seconds=0)
    for targets in [*alone, TARGETS] if FULL else [TARGETS]:
        for fault in FAULTS:
            recovered = _one(cluster, targets, fault, seconds=scaled(3, 15))
            assert recovered <= RECOVERED + undisturbed, f"{fault} of {targets}: {recovered:.0f} s\n{cluster.log()}"
            report.add(
                "cut, half-open, slow, resetting connections to SQL, Valkey, S3",
                f"{fault} for {scaled(3, 15)} s: {', '.join(targets)}; 3 jobs amid it, 1 after it",
                outcome=f"0 lost (without a fault the jobs take {undisturbed:.0f} s)",
                recovery=recovered,
            )
    assert check(cluster) == {"succeeded": len(cluster.submitted)}


def _one(world: World, targets: Sequence[str], fault: Fault, *, seconds: int) -> float:
    """Spoil connections while jobs run and wait; return how long they took after that."""
    job_ids = world.submit(3, steps=10)
    world.wait_for_steps(job_ids[:1], 1)
    for target in targets:
        world.proxies[target].inject(fault)
    time.sleep(seconds)
    for target in targets:
        world.proxies[target].heal()
    healed = time.monotonic()
    job_ids += world.submit(1, steps=2)
    world.wait(job_ids)
    return time.monotonic() - healed
