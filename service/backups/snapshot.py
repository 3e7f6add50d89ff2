"""Whether a file is a sound database of this service, of the schema that it claims."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from service import migrations
from service.backups.errors import BackupCorrupt
from service.kit.settings import Settings

_Schema = dict[tuple[str, str], frozenset[str]]
"""The columns of each table, and each index, view and trigger, by kind and name."""


def check_snapshot(path: Path, revision: str, *, source: Path) -> None:
    """Raise BackupCorrupt unless the SQLite file `path` is whole and has exactly the schema `revision`.

    `source` is what messages name. The file is not changed.
    """
    try:
        with closing(_open_unchanged(path)) as connection:
            problem = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            actual_schema = _schema_of(connection)
            revision_row = _revision_of(connection) if ("table", "alembic_version") in actual_schema else None
    except (sqlite3.DatabaseError, UnicodeError) as error:
        raise BackupCorrupt(f"The database in {source} is not a database: {error}. Take another copy of it.") from error
    if problem != "ok":
        raise BackupCorrupt(f"The database in {source} is damaged: {problem}. Take another copy of it.")
    if revision_row != revision:
        schema = f"the schema {revision_row[:32]}" if revision_row else "no schema"
        raise BackupCorrupt(
            f"The database in {source} has {schema}, its manifest says {revision}: it is not a backup of a service."
        )
    expected_schema = _make_expected_schema(revision)
    wrong = [
        key
        for key in actual_schema.keys() | expected_schema.keys()
        if actual_schema.get(key) != expected_schema.get(key)
    ]
    if wrong:
        kind, name = min(wrong, key=lambda key: (key[0] != "table", key))
        raise BackupCorrupt(
            f"The database in {source} is not of Burnish: the {kind} {name[:200]} is not as the schema {revision} has "
            "it."
        )


def _open_unchanged(path: Path) -> sqlite3.Connection:
    # Immutable, or SQLite would put files of its own beside it.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    # What a stranger's schema defines is looked at, never run.
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _schema_of(connection: sqlite3.Connection) -> _Schema:
    query = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    columns = "SELECT name FROM pragma_table_info(?)"
    return {
        (str(kind), str(name)): frozenset(
            str(row[0]) for row in (connection.execute(columns, (name,)) if kind == "table" else ())
        )
        for kind, name in connection.execute(query).fetchall()
    }


def _revision_of(connection: sqlite3.Connection) -> str | None:
    rows = connection.execute("SELECT version_num FROM alembic_version LIMIT 2").fetchall()
    return str(rows[0][0]) if len(rows) == 1 else None


def _make_expected_schema(revision: str) -> _Schema:
    with tempfile.TemporaryDirectory(prefix="burnish-schema-") as folder:
        settings = Settings.model_validate({"data": folder, "database_url": None})
        migrations.upgrade_schema(settings, revision)
        with closing(sqlite3.connect(Path(folder) / "burnish.db")) as connection:
            return _schema_of(connection)
