"""A database of an earlier schema with jobs that wait and run: to this version, on with them, and back again."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import inspect, select, text, update

from service import migrations
from service.__main__ import cli
from service.context import open_context
from service.controller.leases import end_expired_leases
from service.jobs import lifecycle, repository
from service.kit.db import Database
from service.kit.settings import Settings
from service.migrations import MigrationRefused
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobRow, JobState
from service.tables.models import CheckpointPermissionRow
from tests.fixtures.databases import BOTH
from tests.fixtures.postgres import new_database

EARLIER = "0006"
_COLUMNS = (
    "id, project_id, created_at, model, base, lineage, method, training_file, seed, state, lease_token, "
    "lease_expires_at, started_at, failures, preemptions, pause_requested"
)
_STATES = {"queued": "0, NULL, NULL", "running": "3, 99, 9", "validating": "0, NULL, NULL", "succeeded": "1, NULL, 5"}


def row(state: str) -> str:
    method = '{"type": "supervised", "supervised": {"hyperparameters": {}}}'
    return (
        f"INSERT INTO jobs ({_COLUMNS}) VALUES ('ftjob-{state}', 'proj_a', 0, 'tiny', 'tiny', '[]', '{method}', "
        f"'file-a', 1, '{state}', {_STATES[state]}, 0, 0, FALSE)"
    )


@pytest.fixture(params=BOTH)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Settings]:
    with ExitStack() as stack:
        given: dict[str, Any] = {}
        if request.param == "postgresql":
            given = {"database_url": stack.enter_context(new_database(migrated=False)), "secret_key": "k" * 32}
        yield Settings(data=tmp_path, retry_seconds=0, **given)


@pytest.fixture
def database(settings: Settings) -> Generator[Database]:
    """A database of the earlier schema with a job in every state that matters."""
    migrations.upgrade_schema(settings, EARLIER)
    made = Database(settings.database)
    with made.write() as session:
        session.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('proj_a', '客服', 0)"))
        for state in _STATES:
            session.execute(text(row(state)))
        session.execute(
            text(
                "INSERT INTO job_events (id, job_id, created_at, level, type, message) "
                "VALUES ('ftevent-a', 'ftjob-running', 0, 'info', 'message', '事件')"
            )
        )
    yield made
    made.close()


def states(database: Database) -> dict[str, str]:
    with database.read() as session:
        rows = session.execute(text("SELECT id, state FROM jobs ORDER BY id"))
        return {job_id.removeprefix("ftjob-"): state for job_id, state in rows}


def schema(database: Database) -> dict[str, list[str]]:
    with database.read() as session:
        seen = inspect(session.connection())
        return {name: sorted(column["name"] for column in seen.get_columns(name)) for name in seen.get_table_names()}


@pytest.mark.slow
def test_jobs_survive_a_migration_and_its_way_back(settings: Settings, database: Database) -> None:
    before, earlier = states(database), schema(database)
    migrations.upgrade_schema(settings)
    migrations.check_schema(settings)
    assert states(database) == before

    with database.write() as session:  # what ran lost its worker, and its token goes on from where it was
        (lost,) = repository.with_expired_lease(session)
        assert (lost.id, lost.lease_token) == ("ftjob-running", 3)
    context = open_context(settings)
    end_expired_leases(context, MemoryJobQueue())
    context.db.close()
    assert states(database)["running"] == JobState.QUEUED
    with database.write() as session:
        again = lifecycle.start_job(session, "ftjob-running", owner="w", lease_seconds=60)
        assert again is not None
        assert again.lease_token == 4
        assert lifecycle.start_job(session, "ftjob-queued", owner="w", lease_seconds=60) is not None
        assert lifecycle.queue_up(session, "ftjob-validating")

    now = states(database)
    migrations.move_schema(settings, EARLIER)
    assert (
        states(database)
        == now
        == {
            "queued": "running",
            "running": "running",
            "succeeded": "succeeded",
            "validating": "queued",
        }
    )
    assert schema(database) == earlier
    with database.read() as session:
        assert session.scalar(text("SELECT message FROM job_events WHERE id = 'ftevent-a'")) == "事件"
        tokens = session.execute(text("SELECT id, lease_token FROM jobs WHERE state = 'running'")).all()
        assert sorted(map(tuple, tokens)) == [("ftjob-queued", 1), ("ftjob-running", 4)]

    migrations.upgrade_schema(settings)
    migrations.check_schema(settings)
    assert states(database) == now


@pytest.mark.slow
def test_other_projects_ids_leave_the_lineages_and_blocked_weights_stay(settings: Settings, database: Database) -> None:
    def entry(job_id: str, model: str) -> dict[str, str | None]:
        return {"model": model, "job_id": job_id, "method": "dpo", "training_sha256": "a" * 64}

    chains = {
        "ftjob-queued": ("ftjob-theirs", [entry("ftjob-older", "ft:a"), entry("ftjob-theirs", "ft:共")]),
        "ftjob-running": ("ftjob-queued", [entry("ftjob-theirs", "ft:b"), entry("ftjob-queued", "ft:c")]),
        "ftjob-succeeded": ("ftjob-gone", [entry("ftjob-gone", "ft:d")]),
    }
    with database.write() as session:
        session.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('proj_b', 'b', 0)"))
        session.execute(text(row("succeeded").replace("ftjob-succeeded", "ftjob-theirs").replace("proj_a", "proj_b")))
        session.execute(
            text(
                "INSERT INTO checkpoint_permissions (id, model, job_id, project_id, created_at) "
                "VALUES ('cp_a', 'ft:共', 'ftjob-theirs', 'proj_a', 0)"
            )
        )
        for job_id, (start, lineage) in chains.items():
            values = {"id": job_id, "start": start, "lineage": json.dumps(lineage)}
            as_json = "CAST(:lineage AS JSONB)" if database.engine.dialect.name == "postgresql" else ":lineage"
            query = (
                f"UPDATE jobs SET start_job = :start, lineage = {as_json}, reward_job = 'ftjob-theirs' WHERE id = :id"
            )
            session.execute(text(query), values)
    migrations.upgrade_schema(settings)
    with database.read() as session:
        jobs = {job.id: job for job in session.scalars(select(JobRow))}
        assert session.scalars(select(CheckpointPermissionRow.adapter_download)).all() == ["allowed"]
    assert {job.adapter_download for job in jobs.values()} == {"allowed"}
    shared = {"job_id": None, "method": None, "training_sha256": None}
    assert jobs["ftjob-queued"].lineage == [{"model": "ft:共"} | shared]
    assert jobs["ftjob-running"].lineage == [{"model": "ft:b"} | shared, entry("ftjob-queued", "ft:c")]
    assert jobs["ftjob-succeeded"].lineage == chains["ftjob-succeeded"][1]
    assert {job.foreign_parents for job in jobs.values()} == {"ftjob-theirs", None}

    for table in (JobRow, CheckpointPermissionRow):
        with database.write() as session:
            session.execute(update(table).values(adapter_download="blocked"))
        with pytest.raises(MigrationRefused, match="shared with adapter_download blocked"):
            migrations.move_schema(settings, EARLIER)
        migrations.check_schema(settings)
        with database.write() as session:
            session.execute(update(table).values(adapter_download="allowed"))
    migrations.move_schema(settings, EARLIER)


def names_of_models(database: Database, column: str) -> dict[str, str | None]:
    with database.read() as session:
        rows = session.execute(text(f"SELECT id, {column} FROM jobs ORDER BY id"))
        return {job_id.removeprefix("ftjob-"): name for job_id, name in rows}


@pytest.mark.slow
def test_every_job_gets_the_name_that_it_answered_by(settings: Settings, database: Database) -> None:
    """What was published keeps its name; the others are named by the setting, as the release before named them."""
    migrations.upgrade_schema(settings, "0018")
    made = "ft:tiny:formerly:客服:ucceeded"
    with database.write() as session:
        session.execute(text("UPDATE jobs SET fine_tuned_model = :name WHERE state = 'succeeded'"), {"name": made})
        session.execute(text("UPDATE jobs SET suffix = '客服' WHERE id = 'ftjob-queued'"))
        session.execute(text("UPDATE jobs SET base = 'ft:root:formerly::abc:ckpt-step-3' WHERE id = 'ftjob-running'"))
        session.execute(
            text(
                "INSERT INTO previews (id, project_id, created_at, job, rows_shown) "
                "VALUES ('preview-a', 'proj_a', 0, '{}', 1)"
            )
        )
    named = settings.model_copy(update={"organization": "acme"})
    migrations.upgrade_schema(named)
    names = {
        "queued": "ft:tiny:acme:客服:b-queued",
        "running": "ft:root:acme::-running",
        "succeeded": made,
        "validating": "ft:tiny:acme::lidating",
    }
    assert names_of_models(database, "model_name") == names
    with database.read() as session:
        assert {job.fine_tuned_model for job in session.scalars(select(JobRow))} == {made, None}
        assert session.scalar(text("SELECT count(*) FROM previews")) == 0

    migrations.move_schema(named, "0018")
    assert names_of_models(database, "fine_tuned_model") == {**dict.fromkeys(names), "succeeded": made}
    migrations.upgrade_schema(named)
    assert names_of_models(database, "model_name") == names


def test_more_jobs_than_one_batch_are_all_named(settings: Settings, database: Database) -> None:
    migrations.upgrade_schema(settings, "0018")
    with database.write() as session:
        copied = (
            "INSERT INTO jobs (id, project_id, created_at, model, base, lineage, method, training_file, seed, state, "
            "lease_token, failures, preemptions, pause_requested) SELECT :id, project_id, created_at, model, base, "
            "lineage, method, training_file, seed, state, lease_token, failures, preemptions, pause_requested "
            "FROM jobs WHERE id = 'ftjob-queued'"
        )
        session.execute(text(copied), [{"id": f"ftjob-{number:08}"} for number in range(1001)])
    migrations.upgrade_schema(settings)
    names = names_of_models(database, "model_name")
    assert len(set(names.values())) == len(names) == 1001 + len(_STATES)
    assert names["00001000"] == "ft:tiny:burnish::00001000"


def index_in_line(database: Database) -> str:
    query = "SELECT sql FROM sqlite_master WHERE name = 'ix_jobs_in_line'"
    if database.engine.dialect.name == "postgresql":
        query = "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_jobs_in_line'"
    with database.read() as session:
        return str(session.scalar(text(query)))


@pytest.mark.slow
def test_the_index_of_jobs_in_line_keeps_its_order_and_condition(settings: Settings, database: Database) -> None:
    """SQLite makes the table of jobs anew to change a column, and does not see DESC in an index."""
    migrations.upgrade_schema(settings, "0018")
    before = index_in_line(database)
    assert "priority DESC" in before
    migrations.upgrade_schema(settings)
    assert index_in_line(database) == before
    migrations.move_schema(settings, "0018")
    assert index_in_line(database) == before


@pytest.mark.slow
def test_what_an_earlier_schema_cannot_hold_is_refused_and_nothing_changes(
    settings: Settings, database: Database
) -> None:
    migrations.upgrade_schema(settings)
    with database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == "ftjob-queued").values(state=JobState.PAUSED))
    here = schema(database)
    with pytest.raises(MigrationRefused, match="Some jobs are paused; resume or cancel them first"):
        migrations.move_schema(settings, "0002")
    migrations.check_schema(settings)
    assert schema(database) == here
    assert states(database)["queued"] == "paused"
    with pytest.raises(MigrationRefused, match="There is no schema 1234; this release has 0001, 0002"):
        migrations.move_schema(settings, "1234")


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["migrate", *arguments], env={"BURNISH_DATA": str(tmp_path / "data")})
        return result.exit_code, result.output

    assert run() == (0, f"The database's schema is this version's, {migrations.head_revision()}.\n")
    assert run("--to", "0005") == (0, "The database's schema is 0005.\n")
    assert run("--to", "0007") == (0, "The database's schema is 0007.\n")
    code, said = run("--to", "head")
    assert code == 1
    assert said.startswith("burnish-server: There is no schema head; this release has 0001,")
