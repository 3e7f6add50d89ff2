"""Previews are counted for the projects in turns."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from service.context import Context
from service.keys.tables import Project
from service.previews import repository
from service.previews.tables import Preview
from tests.fixtures.service import make_context


@pytest.fixture
def context(tmp_path: Path) -> Generator[Context]:
    context = make_context(tmp_path)
    with context.db.write() as session:
        session.add_all(Project(id=f"proj_{name}", name=name) for name in "abc")
    yield context
    context.db.close()


def ask(context: Context, preview_id: str, **columns: Any) -> None:
    with context.db.write() as session:
        project = f"proj_{preview_id[0]}"
        session.add(Preview(id=preview_id, project_id=project, job={}, rows_shown=0, **columns))


def following(context: Context, after: str = "") -> str | None:
    with context.db.read() as session:
        return repository.next_waiting(session, within=60, after_project=after)


def test_a_projects_second_preview_waits_for_the_first_of_every_other(context: Context) -> None:
    for preview_id in ("a1", "a2", "a3", "b1", "c1", "c2"):
        ask(context, preview_id)
    order: list[str] = []
    last = ""
    while (preview_id := following(context, last)) is not None:
        order.append(preview_id)
        last = f"proj_{preview_id[0]}"
        with context.db.write() as session:
            repository.take(session, preview_id, worker_id="w")
            repository.remove(session, preview_id)
    assert order == ["a1", "b1", "a2", "c1", "a3", "c2"]


def test_a_project_with_a_preview_at_another_worker_comes_last(context: Context) -> None:
    ask(context, "a1", taken_by="w1")
    ask(context, "a2")
    ask(context, "b1")
    assert following(context) == "b1"
    assert following(context, "proj_b") == "b1"


def test_nothing_waits(context: Context) -> None:
    ask(context, "a1", taken_by="w1")
    assert following(context) is None
