from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, select, text

from service import migrations
from service.files import service as files
from service.jobs import repository as jobs
from service.kit.db import Database
from service.kit.errors import Unavailable
from service.kit.outbox import OutboxRow
from service.kit.settings import Settings, SettingsError
from service.migrations.tables import TABLES
from service.tables.files import FileContentRow, FileRow
from service.tables.jobs import JobArtifactRow, JobCheckpointRow, JobEventRow, JobRow
from service.tables.limits import TrainingSpanRow
from service.tables.models import FineTunedModelRow
from service.tables.webhooks import WebhookAttemptRow
from tests.fixtures.postgres import new_database


@pytest.mark.slow
def test_the_migrations_make_the_tables_that_the_code_says(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    with pytest.raises(SettingsError, match="burnish-server migrate"):
        migrations.check_schema(settings)
    migrations.upgrade_schema(settings)
    migrations.upgrade_schema(settings)  # a second time changes nothing
    migrations.check_schema(settings)
    database = Database(settings.database)
    with database.read() as session:
        differences = compare_metadata(MigrationContext.configure(session.connection()), TABLES[0].metadata)
        assert differences == []
        assert {table.__tablename__ for table in TABLES} <= set(inspect(session.connection()).get_table_names())
    database.close()


@pytest.mark.integration
def test_the_same_on_postgresql(tmp_path: Path) -> None:
    with new_database(migrated=False) as url:
        settings = Settings(data=tmp_path, database_url=url, secret_key="k" * 32)
        migrations.upgrade_schema(settings)
        database = Database(settings.database)
        with database.read() as session:
            assert compare_metadata(MigrationContext.configure(session.connection()), TABLES[0].metadata) == []
        database.close()


def test_a_database_that_cannot_be_reached_is_a_sentence(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, database_url="postgresql://u:secret@127.0.0.1:1/x", secret_key="k" * 32)
    with pytest.raises(Unavailable, match="does not answer") as caught:
        migrations.upgrade_schema(settings)
    assert "secret" not in str(caught.value)


def test_jobs_of_the_first_schema_are_kept(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    migrations.upgrade_schema(settings, "0001")
    database = Database(settings.database)
    with database.write() as session:
        for statement in FIRST_SCHEMA:
            session.execute(text(statement))
    migrations.upgrade_schema(settings)
    with database.read() as session:
        job, tagged = session.scalars(select(JobRow).order_by(JobRow.seq)).all()
        model = session.scalars(select(FineTunedModelRow)).one()
        assert (job.base, job.lineage, job.waits_for, job.start_job) == ("tiny", [], None, None)
        assert (job.training_sha256, job.validation_sha256) == ("a" * 64, None)
        assert (model.kind, model.manifest_sha256) == ("adapter", None)
        assert session.scalars(select(JobEventRow)).one().message == "事件"
        assert tagged.user_metadata == {"团队": "客服"}
        for metadata, found in ((None, [job]), ({"团队": "客服"}, [tagged]), ({"团队": "x"}, []), ({}, [tagged, job])):
            assert jobs.fetch_job_page(session, "proj_a", metadata=metadata, after=None, limit=9) == (found, False)
    database.close()


def test_notices_of_the_second_schema_are_still_delivered(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    migrations.upgrade_schema(settings, "0002")
    database = Database(settings.database)
    with database.write() as session:
        for statement in SECOND_SCHEMA:
            session.execute(text(statement))
    migrations.upgrade_schema(settings)
    with database.read() as session:
        rows = session.scalars(select(OutboxRow).order_by(OutboxRow.seq)).all()
        assert [(row.topic, row.lane) for row in rows] == [("tell_webhooks", None), ("send_webhook", None)]
        tries = session.scalars(select(WebhookAttemptRow).order_by(WebhookAttemptRow.seq)).all()
        assert [(row.id, row.endpoint_id, row.event_type) for row in tries] == [
            ("whatt_1", None, "unknown"),
            ("whatt_2", None, "unknown"),
        ]
    database.close()


def test_jobs_of_the_sixth_schema_keep_their_events_and_have_no_limits(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    migrations.upgrade_schema(settings, "0006")
    database = Database(settings.database)
    with database.write() as session:
        for statement in SIXTH_SCHEMA:
            session.execute(text(statement))
    migrations.upgrade_schema(settings)
    with database.read() as session:
        job = session.scalars(select(JobRow)).one()
        assert (job.priority, job.running_seconds, job.timeout_seconds, job.budget, job.resources) == (
            0,
            0,
            *[None] * 3,
        )
        assert session.scalars(select(JobEventRow)).one().message == "事件"
    database.close()


def test_tries_at_the_operators_receiver_lose_the_secret_in_its_url(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    migrations.upgrade_schema(settings, "0016")
    database = Database(settings.database)
    url, told = (
        "https://me:hunter2@hooks.example/钩子?token=s3cret",
        "a redirect to https://hooks.example/钩子?token=s3cret",
    )
    with database.write() as session:
        for number, (endpoint, error) in enumerate([(None, told), (None, None), ("whe_a", told)]):
            session.execute(
                text(
                    "INSERT INTO webhook_attempts (id, endpoint_id, event_id, event_type, url, at, error, duration_ms) "
                    "VALUES (:id, :endpoint, 'evt_a', 't', :url, 0, :error, 1)"
                ),
                {"id": f"whatt_{number}", "endpoint": endpoint, "url": url, "error": error},
            )
        outbox = "INSERT INTO outbox (topic, payload, lane, attempts, due_at, error) VALUES "
        session.execute(text(outbox + "('send_webhook', '{}', 'settings', 1, 0, :error)"), {"error": told})
    migrations.upgrade_schema(settings)
    clean = "a redirect to https://hooks.example/钩子"
    with database.read() as session:
        tries = session.scalars(select(WebhookAttemptRow).order_by(WebhookAttemptRow.seq)).all()
        own = ("https://hooks.example/钩子", clean), ("https://hooks.example/钩子", None)
        assert [(row.url, row.error) for row in tries] == [*own, (url, told)]
        assert session.scalars(select(OutboxRow.error)).all() == [clean]
    migrations.move_schema(settings, "0016")
    with database.read() as session:
        assert session.scalars(text("SELECT error FROM outbox")).all() == [clean]
    database.close()


SIXTH_SCHEMA = (
    "INSERT INTO projects (id, name, created_at) VALUES ('proj_a', 'p', 0)",
    "INSERT INTO jobs (id, project_id, created_at, model, base, lineage, method, training_file, seed, state, "
    "lease_token, failures, preemptions, pause_requested) VALUES ('ftjob-a', 'proj_a', 0, 'tiny', 'tiny', '[]', "
    "'{\"type\": \"supervised\"}', 'file-a', 1, 'succeeded', 1, 0, 0, 0)",
    "INSERT INTO job_events (id, job_id, created_at, level, type, message) "
    "VALUES ('ftevent-a', 'ftjob-a', 0, 'info', 'message', '事件')",
)


def test_files_that_were_stored_twice_keep_their_own_bytes(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    migrations.upgrade_schema(settings, "0006")
    database = Database(settings.database)
    facts = "'proj_a', 'f.jsonl', 'fine-tune', 1"
    with database.write() as session:
        session.execute(text(FIRST_SCHEMA[0]))
        for name in ("a", "b"):
            session.execute(
                text(
                    "INSERT INTO files (id, project_id, filename, purpose, bytes, sha256, blob_key, created_at) "
                    f"VALUES ('file-{name}', {facts}, '{'a' * 64}', 'files/file-{name}', 0)"
                )
            )
    migrations.upgrade_schema(settings)
    with database.write() as session:
        first, second = session.scalars(select(FileRow).order_by(FileRow.seq)).all()
        assert (first.packing, second.packing) == ("none", "none")
        (content,) = session.scalars(select(FileContentRow)).all()
        assert (content.blob_key, content.files) == ("files/file-a", 1)
        for file in (second, first):
            files.remove_file(session, file)
        session.flush()
        asked = session.scalars(select(OutboxRow).order_by(OutboxRow.seq)).all()
        assert [row.payload["key"] for row in asked] == ["files/file-b", "files/file-a"]
        assert session.scalars(select(FileContentRow)).all() == []
    database.close()


def test_what_belongs_to_jobs_outlives_every_migration(tmp_path: Path) -> None:
    """SQLite makes a table anew to change it; what refers to its rows must not go with the old one."""
    settings = Settings(data=tmp_path)
    migrations.upgrade_schema(settings, "0001")
    database = Database(settings.database)
    with database.write() as session:
        for statement in (*FIRST_SCHEMA, *OF_A_JOB):
            session.execute(text(statement))
    migrations.upgrade_schema(settings)
    with database.read() as session:
        assert session.scalar(select(JobEventRow.id)) == "ftevent-a"
        assert session.scalar(select(JobCheckpointRow.bytes)) == 0
        assert session.scalar(select(JobArtifactRow.name)) == "adapter"
        span = session.scalars(select(TrainingSpanRow)).one()
        assert (span.job_id, span.started_at, span.ended_at) == ("ftjob-a", 5, 65)
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
    database.close()


OF_A_JOB = (
    "UPDATE jobs SET started_at = 5, finished_at = 65 WHERE id = 'ftjob-a'",
    "INSERT INTO job_checkpoints (id, job_id, created_at, step, metrics, blob_prefix, manifest_sha256) "
    "VALUES ('ftckpt_a', 'ftjob-a', 0, 1, '{}', 'jobs/a', 'x')",
    "INSERT INTO job_artifacts (job_id, name, filename, media_type, blob_key, bytes, sha256) "
    "VALUES ('ftjob-a', 'adapter', 'a.zip', 'application/zip', 'jobs/a/a.zip', 1, 'x')",
)
SECOND_SCHEMA = (
    "INSERT INTO outbox (topic, payload, attempts, due_at) VALUES ('send_webhook', '{\"event_id\": \"evt_a\"}', 3, 0)",
    "INSERT INTO outbox (topic, payload, attempts, due_at, done_at) VALUES ('send_webhook', '{}', 1, 0, 1)",
    "INSERT INTO webhook_attempts (event_id, url, at, duration_ms) VALUES ('evt_a', 'http://h/', 0, 1)",
    "INSERT INTO webhook_attempts (event_id, url, at, duration_ms) VALUES ('evt_a', 'http://h/', 0, 1)",
)
FIRST_SCHEMA = (
    "INSERT INTO projects (id, name, created_at) VALUES ('proj_a', 'p', 0)",
    "INSERT INTO files (id, project_id, filename, purpose, bytes, sha256, blob_key, created_at) "
    f"VALUES ('file-a', 'proj_a', 'f.jsonl', 'fine-tune', 1, '{'a' * 64}', 'files/file-a', 0)",
    "INSERT INTO jobs (id, project_id, created_at, model, method, training_file, seed, state, lease_token, failures, "
    "preemptions) VALUES ('ftjob-a', 'proj_a', 0, 'tiny', '{\"type\": \"supervised\"}', 'file-a', 1, 'succeeded', "
    "1, 0, 0)",
    "INSERT INTO job_events (id, job_id, created_at, level, type, message) "
    "VALUES ('ftevent-a', 'ftjob-a', 0, 'info', 'message', '事件')",
    "INSERT INTO jobs (id, project_id, created_at, model, method, training_file, seed, state, lease_token, failures, "
    "preemptions, metadata) VALUES ('ftjob-b', 'proj_a', 0, 'tiny', '{\"type\": \"supervised\"}', 'file-a', 1, "
    "'queued', 1, 0, 0, '{\"团队\": \"客服\"}')",
    "INSERT INTO fine_tuned_models (id, project_id, base, job_id, blob_prefix, created_at) "
    "VALUES ('ft:tiny:o::a', 'proj_a', 'tiny', 'ftjob-a', 'jobs/a', 0)",
)
