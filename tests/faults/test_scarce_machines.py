"""A machine with too little: a full disk, no memory, no GPU memory; and a loss that is no number."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.invariants import check
from tests.faults.report import Report
from tests.faults.scale import FULL, PATIENCE
from tests.faults.world import QUICK, World, running_world
from tests.fixtures.processes import jsonl, rows

pytestmark = [pytest.mark.faults, pytest.mark.timeout(PATIENCE)]

TROUBLES = {
    "nan": ("loss_not_finite", "not a finite number at step 2"),
    "cuda": ("out_of_memory", "lower batch_size or max_length"),
    "memory": ("out_of_memory", "lower batch_size or max_length"),
    "killed": ("out_of_memory", "most likely because the worker ran out of memory"),
    "full": ("disk_full", "The disk of the worker is full"),
}
ROWS = dict.fromkeys(TROUBLES, "out of memory, NaN loss, CUDA out of memory") | {"full": "disk full (small tmpfs)"}
PACE = QUICK | {"lease_seconds": "60", "heartbeat_seconds": "5"}


def test_lack_of_memory_or_disk_or_a_nan_loss_ends_only_the_job(
    tmp_path: Path, tiny_base: Path, report: Report
) -> None:
    kinds = [kind for kind in TROUBLES if kind != "full"] if FULL else ["nan", "cuda"]
    disk = _small_disk(tmp_path / "data" / "work", "8m")
    with running_world(
        tmp_path,
        workers=1,
        pace=PACE,
        base=tiny_base,
        real_trainer=True,
        options={"trainer": (sys.executable, "-m", "tests.faults.broken_trainer")},
        wrap=disk or _as_it_is,
        max_failures="1",
    ) as world:
        ended = {kind: world.submit(1, steps=4, suffix=kind)[0] for kind in kinds}
        if disk is not None:
            files = {"file": ("大.jsonl", jsonl(rows(4)) * 60_000)}
            large = world.request("POST", "/files", files=files, data={"purpose": "fine-tune"}).json()["id"]
            ended["full"] = world.submit(1, steps=2, training_file=large)[0]
        healthy = world.submit(1, steps=2, suffix="healthy")
        world.wait(world.submitted, seconds=PATIENCE / 2)
        check(world, simulated=False)
        for kind, job_id in ended.items():
            _failed(world, job_id, *TROUBLES[kind])
            report.add(ROWS[kind], kind, outcome=_error(world, job_id))
        assert world.job(healthy[0]).state == "succeeded"
        assert world.processes["worker-1"].restarts == 0
    if disk is None:
        pytest.skip("all but the full disk was tried: this machine lets nobody mount a tmpfs")


@pytest.mark.skipif(not FULL, reason="make faults alone: the short form fills the disk at a job's input")
def test_a_disk_that_fills_up_in_the_training_ends_the_job_alone(
    tmp_path: Path, tiny_base: Path, report: Report
) -> None:
    disk = _small_disk(tmp_path / "data" / "work", "3m")
    if disk is None:
        pytest.skip("this machine lets nobody mount a tmpfs")
    with running_world(
        tmp_path,
        workers=1,
        pace=PACE,
        base=tiny_base,
        real_trainer=True,
        wrap=disk,
        max_failures="1",
    ) as world:
        method = {"n_epochs": 4, "batch_size": 1, "checkpoint_steps": 1}
        greedy = world.submit(1, method=_supervised(method | {"lora": {"rank": 64, "alpha": 64}}))
        healthy = world.submit(1, method=_supervised({"n_epochs": 1, "lora": {"rank": 1, "alpha": 2}}))
        world.wait([*greedy, *healthy], seconds=PATIENCE / 2)
        check(world, simulated=False)
        _failed(world, greedy[0], "disk_full", "The disk of the worker is full")
        assert world.job(healthy[0]).state == "succeeded"
        report.add("disk full (small tmpfs)", "the worker's folder, in the training", outcome=_error(world, greedy[0]))


def _supervised(hyperparameters: dict[str, object]) -> dict[str, object]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def _failed(world: World, job_id: str, code: str, words: str) -> None:
    job = world.job(job_id)
    assert job.state == "failed", world.log()
    assert job.error is not None
    assert job.error["code"] == code, job.error
    assert words in job.error["message"]


def _error(world: World, job_id: str) -> str:
    error = world.job(job_id).error or {}
    return f"`{error['code']}`: {error['message']} The worker went on."


def _as_it_is(_role: str, command: list[str], _environment: dict[str, str]) -> list[str]:
    return command


def _small_disk(folder: Path, size: str) -> Callable[[str, list[str], dict[str, str]], list[str]] | None:
    """Return what puts a worker into a mount namespace of its own, where `folder` is a tmpfs of `size`.

    None where this machine does not allow that.
    """
    unshare = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--mount"]
    mount = [*unshare, "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"']
    if (
        shutil.which("unshare") is None
        or subprocess.run([*mount, "/mnt", "true"], capture_output=True, check=False).returncode != 0
    ):
        return None

    def wrap(role: str, command: list[str], _environment: dict[str, str]) -> list[str]:
        if not role.startswith("worker"):
            return command
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return [*mount, str(folder), *command]

    return wrap
