"""The clocks of worker and controller are wrong, or jump; leases go by the database's clock alone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.invariants import check
from tests.faults.report import Report
from tests.faults.scale import FULL, PATIENCE
from tests.faults.world import QUICK, Servers, running_world

pytestmark = [pytest.mark.faults, pytest.mark.timeout(PATIENCE)]

PACE = QUICK | {"heartbeat_seconds": "2", "lease_seconds": "20"}
WRONG = ("+10m", "-10m", "+1d", "-1d")
MINUTES = {"+10m": 10, "-10m": -10, "+1d": 1440, "-1d": -1440}


def _library() -> Path:
    spec = find_spec("libfaketime")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"


@pytest.mark.skipif(not _library().exists(), reason="libfaketime has no library for this system")
def test_wrong_and_jumping_clocks_start_no_job_twice(tmp_path: Path, cluster_servers: Servers, report: Report) -> None:
    clocks = {"worker-1": tmp_path / "clock-1", "worker-2": tmp_path / "clock-2", "controller": tmp_path / "clock-3"}

    def wrap(role: str, command: list[str], environment: dict[str, str]) -> list[str]:
        if role in clocks:
            clocks[role].write_text("+0\n")
            environment |= {
                "LD_PRELOAD": str(_library()),
                "FAKETIME_TIMESTAMP_FILE": str(clocks[role]),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        return command

    servers = Servers(cluster_servers.postgres)
    with running_world(tmp_path, servers, workers=2, pace=PACE, step_seconds=0.1, wrap=wrap) as world:
        job_ids: list[str] = []
        for offset in WRONG if FULL else WRONG[-1:]:
            opposite = offset.translate(str.maketrans("+-", "-+"))
            made = world.submit(2, steps=20)
            world.wait_for_steps(made, 2)  # the clocks jump while these run
            clocks["worker-1"].write_text(f"{offset}\n")
            clocks["worker-2"].write_text(f"{opposite}\n")
            clocks["controller"].write_text(f"{offset}\n")
            made += world.submit(2, steps=5)
            world.wait(made)
            starts = ledger.starts(world.entries(made))
            assert set(starts.values()) == {1}, f"{offset}: {starts}\n{world.log()}"
            job_ids += made
            report.add(
                "clocks ±10 min, ±1 day (faketime)",
                f"jump amid 2 jobs: worker 1 and controller {offset}, worker 2 {opposite}; 2 jobs after it",
                outcome="no duplicate run",
            )
        assert check(world) == {"succeeded": len(world.submitted)}
        assert _is_wrong(world.processes["worker-1"].log)


def _is_wrong(log: Path) -> bool:
    """Return whether the worker's log shows times that are far apart."""
    days = {line[:10] for line in log.read_text().splitlines() if line[:4].isdigit()}
    return len(days) > 1
