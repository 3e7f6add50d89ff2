"""Projects take turns at the making of exports, and queue a bounded number of them."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import insert

from service.exports import lifecycle, repository, service
from service.kit.fair_turns import TurnsExhausted
from service.tables.exports import ExportStatus, ModelExportRow
from service.tables.jobs import JobState
from tests.fixtures.turns import TurnsWorld, queue

__all__ = ["queue"]


def add(queue: TurnsWorld, project: str, times: int = 1) -> list[str]:
    (job_id,) = queue.add(project, state=JobState.SUCCEEDED)
    ids = [f"{job_id}-{number}" for number in range(times)]
    common = {"project_id": project, "job_id": job_id, "format": "gguf", "precision": "f16", "filename": "模型.gguf"}
    with queue.db.write() as session:
        session.execute(
            insert(ModelExportRow), [{"id": name, "model": name, "expires_at": 4e9} | common for name in ids]
        )
    return ids


def start(queue: TurnsWorld) -> ModelExportRow | None:
    with queue.db.write() as session:
        return lifecycle.start_export(session, owner="w", lease_seconds=60)


def test_a_flood_of_one_projects_exports_delays_anothers_by_one(queue: TurnsWorld) -> None:
    add(queue, "proj_a", 20)
    for _ in range(3):
        (single,) = add(queue, "proj_客服")
        made: list[str] = []
        while single not in made:
            export = start(queue)
            assert export
            made.append(export.id)
            with queue.db.write() as session:
                repository.move_export(session, export.id, export.lease_token, ExportStatus.READY)
        assert len(made) <= 2


def test_a_deleted_export_gives_no_turn_back(queue: TurnsWorld) -> None:
    add(queue, "proj_a", 4)
    add(queue, "proj_b", 2)
    order: list[str] = []
    for _ in range(4):
        export = start(queue)
        assert export
        order.append(export.project_id)
        with queue.db.write() as session:
            lifecycle.remove_export(session, export, queue.settings)
    assert order == ["proj_a", "proj_b", "proj_a", "proj_b"]


def test_claims_at_the_same_moment_take_turns_and_never_the_same_export(queue: TurnsWorld) -> None:
    add(queue, "proj_a", 8)
    add(queue, "proj_b", 3)
    taken: list[ModelExportRow | None] = []
    barrier = threading.Barrier(6)

    def claim() -> None:
        barrier.wait()
        taken.append(start(queue))

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(export.project_id for export in taken if export) == {"proj_a": 3, "proj_b": 3}
    assert len({export.id for export in taken if export}) == 6


def test_a_project_can_queue_a_bounded_number_of_exports(queue: TurnsWorld, tmp_path: Path) -> None:
    add(queue, "proj_a", 3)
    with queue.db.write() as session:
        service.require_place(session, "proj_a", 4)
        service.require_place(session, "proj_b", 3)
        with pytest.raises(TurnsExhausted, match="3 exports of this project are waiting already") as refused:
            service.require_place(session, "proj_a", 3)
    assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "30"})
    assert start(queue)
    with queue.db.write() as session:
        service.require_place(session, "proj_a", 3)
