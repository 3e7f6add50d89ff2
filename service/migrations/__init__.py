"""The database's schema by Alembic: `upgrade` brings it to this version, `check` tells whether it is there."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.kit.db import Database
from service.kit.settings import Settings, SettingsError


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Bring the schema to this version, or to an earlier `revision`.

    Raises Unavailable where the database does not answer.
    """
    database = Database(settings.database)
    try:
        database.check()
        config = _config()
        config.attributes["engine"] = database.engine
        command.upgrade(config, revision)
    finally:
        database.close()


def check(settings: Settings) -> None:
    """Raise SettingsError unless the schema is this version's, Unavailable where the database does not answer."""
    database = Database(settings.database)
    try:
        with database.read() as session:
            current = MigrationContext.configure(session.connection()).get_current_revision()
    finally:
        database.close()
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if current != head:
        raise SettingsError(
            f"The database's schema is at {current or 'nothing'}, this version needs {head}. "
            "Run `burnish-server migrate` first."
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
