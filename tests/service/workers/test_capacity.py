from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.context import Context, open_context
from service.kit.db import Base
from service.kit.settings import Settings, SettingsError, load_settings
from service.workers import repository
from service.workers.capacity import Capacity, memories_of, own_capacity

LISTING = """0, GPU-aaaa-1, 81559
1, GPU-bbbb-2, 24564
2, GPU-cccc-3, [N/A]
"""
MIB = 1 << 20


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [81559, 24564]),
        ("", []),
        ("1", [24564]),
        ("1,0", [24564, 81559]),
        ("GPU-bbbb", [24564]),
        ("0,7,1", [81559]),
        ("-1", []),
    ],
)
def test_gpus_are_those_that_cuda_sees(visible: str | None, expected: list[int]) -> None:
    assert memories_of(LISTING, visible) == [size * MIB for size in expected]


def test_without_a_driver_there_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert own_capacity(Settings(data=tmp_path)) == Capacity()


def test_what_nvidia_smi_says_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, GPU-aaaa-1, 81559'\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert own_capacity(Settings(data=tmp_path)) == Capacity(gpus=1, gpu_memory=81559 * MIB)


def test_settings_decide(tmp_path: Path) -> None:
    given = Settings(data=tmp_path, worker_gpus=2, worker_gpu_memory_gb=80, worker_labels="a100, zone=eu")
    assert own_capacity(given) == Capacity(gpus=2, gpu_memory=80 * 10**9, labels=frozenset({"a100", "zone=eu"}))
    none = Settings(data=tmp_path, worker_gpus=0, worker_gpu_memory_gb=80)
    assert own_capacity(none) == Capacity()


def test_a_label_that_no_job_can_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_WORKER_LABELS", "a100,标签")
    with pytest.raises(SettingsError, match="BURNISH_WORKER_LABELS: '标签' is not a label"):
        load_settings()


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    context = open_context(Settings(data=tmp_path))
    Base.metadata.create_all(context.db.engine)
    yield context
    context.db.close()


def test_workers_are_alive_while_they_say_so(context: Context) -> None:
    capacity = Capacity(gpus=1, labels=frozenset("ba"))
    with context.db.write() as session:
        for worker_id in ("w.1", "w.2", "w.1"):
            repository.report_worker(session, worker_id, name="工", capacity=capacity)
    with context.db.read() as session:
        found = repository.alive_workers(session, within=60)
        assert repository.alive_workers(session, within=-1) == []
    assert sorted(worker.id for worker in found) == ["w.1", "w.2"]
    assert repository.capacity_of(found[0]) == capacity
    with context.db.write() as session:
        repository.remove_worker(session, "w.1")
        assert repository.delete_stopped_workers(session, age=60) == 0
        assert repository.delete_stopped_workers(session, age=-1) == 1
