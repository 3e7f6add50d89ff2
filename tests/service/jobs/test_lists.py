"""Lists read an index from where the page begins: no scan, no sort, the same work at every depth."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Any

import pytest
from openai import OpenAI
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from service.context import open_context
from service.files import repository as files
from service.jobs import repository as jobs
from service.keys.service import create_key
from service.kit.db import Database
from service.kit.settings import Settings
from service.migrations import upgrade_schema
from service.tables.keys import ProjectRow
from tests.fixtures.many import RARE, metadata_of, seed_lists
from tests.fixtures.postgres import new_database
from tests.fixtures.service import run_api, write_catalog

COUNT = 2400
Page = Callable[[Session, str, str | None], tuple[Any, bool]]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Settings, None, None]:
    folder = tmp_path_factory.mktemp("lists")
    catalog = write_catalog(folder, folder)
    if request.param == "sqlite":
        yield _seeded(Settings(data=folder, catalog=catalog))
    else:
        with new_database() as url:
            yield _seeded(Settings(data=folder, catalog=catalog, database_url=url, secret_key="k" * 32))


def _seeded(settings: Settings) -> Settings:
    upgrade_schema(settings)
    database = Database(settings.database)
    try:
        with database.write() as session:
            own, _ = create_key(session, b"k" * 32, project="many", name="test")
            other, _ = create_key(session, b"k" * 32, project="others", name="test")
        seed_lists(database, own.project_id, COUNT)
        seed_lists(database, other.project_id, COUNT, first=COUNT)  # newer, so in the way of a scan
    finally:
        database.close()
    return settings


@pytest.fixture
def database(world: Settings) -> Generator[Database, None, None]:
    made = Database(world.database)
    yield made
    made.close()


def _jobs(metadata: dict[str, str] | None) -> Page:
    return lambda session, project, after: jobs.fetch_job_page(
        session, project, metadata=metadata, after=after, limit=20
    )


def _files(purpose: str | None) -> Page:
    return lambda session, project, after: files.fetch_file_page(
        session, project, purpose=purpose, after=after, limit=20, order="desc"
    )


def _events(session: Session, _project: str, after: str | None) -> tuple[Any, bool]:
    return jobs.event_page(session, f"ftjob-{0:024}", after=after, limit=20, order="desc")


PAGES: dict[str, tuple[Page, str, str]] = {
    "jobs": (_jobs({}), "ftjob-", "ix_jobs_project_seq"),
    "jobs of a common metadata": (_jobs({"team": "队0"}), "ftjob-", "pk_job_metadata"),
    "jobs of a rare metadata": (_jobs({"rare": "是", "team": "队0"}), "ftjob-", "pk_job_metadata"),
    "jobs without metadata": (_jobs(None), "ftjob-", "pk_job_metadata"),
    "files": (_files(None), "file-", "ix_files_project_seq"),
    "files of a rare purpose": (_files("fine-tune-results"), "file-", "ix_files_project_purpose_seq"),
    "events": (_events, "ftevent-", "ix_job_events_job_seq"),
}
_FIRST = {
    "jobs of a common metadata": 0,
    "jobs of a rare metadata": 2,
    "jobs without metadata": 1,
    "files of a rare purpose": 3,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("deep", [False, True], ids=["first page", "last page"])
def test_a_page_is_read_from_its_index(database: Database, name: str, deep: bool) -> None:
    page, prefix, index = PAGES[name]
    after = f"{prefix}{_FIRST.get(name, 0) + 2 * RARE:024}" if deep else None
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    with database.read() as session:
        project_id = session.scalars(select(ProjectRow.id).where(ProjectRow.name == "many")).one()
        event.listen(database.engine, "before_cursor_execute", note)
        rows, _ = page(session, project_id, after)
        event.remove(database.engine, "before_cursor_execute", note)
        assert rows
        plan = _plan(session, *seen[-1])
    assert index in plan or (index.startswith("pk_") and "USING PRIMARY KEY" in plan), plan
    for costly in ("Sort", "Seq Scan", "TEMP B-TREE", "SCAN "):
        assert costly not in plan, plan
    if deep and database.engine.dialect.name == "sqlite":
        assert re.search(r"\b\w*(seq|rowid)[<>]", plan), f"the page is not sought, but walked to: {plan}"


def _plan(session: Session, statement: str, parameters: Any) -> str:
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        lines = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).all()
    else:
        lines = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    return "\n".join(str(line[-1]) for line in lines)


@pytest.mark.slow
def test_the_official_client_turns_every_page(world: Settings) -> None:
    context = open_context(world)
    with run_api(context) as api, OpenAI(base_url=api.url, api_key=api.key("many"), max_retries=0) as client:
        expected = [f"ftjob-{n:024}" for n in range(COUNT)][::-1]
        pages = client.fine_tuning.jobs.list(limit=20).iter_pages()
        turned = [[job.id for job in page.data] for page, _ in zip(pages, range(52), strict=False)]
        assert turned[50] == expected[1000:1020]  # the 51st
        assert [job_id for page in turned for job_id in page] == expected[:1040]
        bare = client.fine_tuning.jobs.list(limit=2, extra_query={"metadata": "null"})
        assert [int(job.id[-24:]) for job in bare] == [n for n in range(COUNT) if metadata_of(n) is None][::-1]
        rare = client.fine_tuning.jobs.list(limit=2, metadata={"rare": "是", "team": "队0"})
        assert [int(job.id[-24:]) for job in rare] == [n for n in range(COUNT) if n % RARE == 2][::-1]
        events = client.fine_tuning.jobs.list_events(f"ftjob-{0:024}", limit=100)
        assert [event.id for event in events] == [f"ftevent-{n:024}" for n in range(COUNT)][::-1]
        assert len(list(client.files.list(limit=1000))) == COUNT
