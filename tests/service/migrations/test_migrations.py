from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from service import migrations
from service.kit.db import Database
from service.kit.errors import Unavailable
from service.kit.settings import Settings, SettingsError
from service.migrations.tables import TABLES


def test_the_migrations_make_the_tables_that_the_code_says(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    with pytest.raises(SettingsError, match="burnish-server migrate"):
        migrations.check(settings)
    migrations.upgrade(settings)
    migrations.upgrade(settings)  # a second time changes nothing
    migrations.check(settings)
    database = Database(settings.database)
    with database.read() as session:
        differences = compare_metadata(MigrationContext.configure(session.connection()), TABLES[0].metadata)
        assert differences == []
        assert {table.__tablename__ for table in TABLES} <= set(inspect(session.connection()).get_table_names())
    database.close()


def test_a_database_that_cannot_be_reached_is_a_sentence(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, database_url="postgresql://u:secret@127.0.0.1:1/x", secret_key="k" * 32)
    with pytest.raises(Unavailable, match="does not answer") as caught:
        migrations.upgrade(settings)
    assert "secret" not in str(caught.value)
