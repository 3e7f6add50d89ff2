"""Projects take turns at the counting of previews."""

from __future__ import annotations

from sqlalchemy import insert

from service.previews import repository
from service.tables.previews import PreviewRow
from tests.fixtures.turns import TurnsWorld, queue

__all__ = ["queue"]


def add(queue: TurnsWorld, project: str, times: int = 1) -> None:
    with queue.db.write() as session:
        for _ in range(times):
            queue.count += 1
            values = {"id": f"preview-{queue.count}", "project_id": project, "job": {"词": 1}, "rows_shown": 1}
            session.execute(insert(PreviewRow).values(values))


def claim(queue: TurnsWorld, worker: str = "w") -> PreviewRow | None:
    with queue.db.write() as session:
        return repository.claim_preview(session, worker_id=worker, within=60)


def test_previews_of_projects_are_counted_in_turns(queue: TurnsWorld) -> None:
    add(queue, "proj_a", 4)
    add(queue, "proj_b", 2)
    order: list[str] = []
    while (preview := claim(queue)) is not None:
        order.append(preview.project_id)
        with queue.db.write() as session:
            repository.finish_preview(session, preview.id, {})
            repository.delete_preview(session, preview.id)
    assert order == ["proj_a", "proj_b", "proj_a", "proj_b", "proj_a", "proj_a"]


def test_a_project_with_a_running_preview_comes_after_one_that_waits(queue: TurnsWorld) -> None:
    add(queue, "proj_a", 3)
    first, second = claim(queue), claim(queue, "w2")
    assert first
    assert second
    with queue.db.write() as session:
        repository.finish_preview(session, first.id, {})
    add(queue, "proj_b", 2)
    third, fourth = claim(queue), claim(queue)
    assert third
    assert fourth
    assert [third.project_id, fourth.project_id] == ["proj_b", "proj_a"]
