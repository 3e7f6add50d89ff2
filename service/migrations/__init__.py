"""The database's schema by Alembic: `upgrade_schema` brings it to this version, `move_schema` to any other."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.kit.db import Database
from service.kit.settings import Settings, SettingsError


class MigrationRefused(Exception):
    """The data does not fit the requested schema; the message says what to do. Nothing was changed."""


def upgrade_schema(settings: Settings, revision: str = "head") -> None:
    """Bring the schema to this version, or to an earlier `revision`.

    Raises Unavailable if the database does not answer.
    """
    with _alembic_engine(settings) as config:
        command.upgrade(config, revision)


def move_schema(settings: Settings, revision: str) -> None:
    """Bring the schema to `revision`, forth or back, in one transaction.

    Raises MigrationRefused if there is no such revision or the data does not fit it, Unavailable.
    """
    if not knows_revision(revision):
        known_revisions = ", ".join(sorted(_list_revisions()))
        raise MigrationRefused(f"There is no schema {revision}; this release has {known_revisions}.")
    back = revision in {
        entry.revision for entry in _script_directory().iterate_revisions(_current_revision(settings), "base")
    }
    with _alembic_engine(settings) as config:
        try:
            (command.downgrade if back else command.upgrade)(config, revision)
        except RuntimeError as error:
            raise MigrationRefused(str(error)) from error


def head_revision() -> str:
    """Return this version's schema revision."""
    revision = _script_directory().get_current_head()
    assert revision is not None
    return revision


def knows_revision(revision: str) -> bool:
    """Return whether this version can come from that schema."""
    return revision in _list_revisions()


def check_schema(settings: Settings) -> None:
    """Raise SettingsError unless the schema is this version's, Unavailable if the database does not answer."""
    current = _current_revision(settings)
    if current != head_revision():
        raise SettingsError(
            f"The database's schema is at {current or 'nothing'}, this version needs {head_revision()}. "
            "Run `burnish-server migrate` first."
        )


def _current_revision(settings: Settings) -> str | None:
    database = Database(settings.database)
    try:
        with database.read() as session:
            return MigrationContext.configure(session.connection()).get_current_revision()
    finally:
        database.close()


def _list_revisions() -> set[str]:
    return {script.revision for script in _script_directory().walk_revisions()}


def _script_directory() -> ScriptDirectory:
    return ScriptDirectory.from_config(_alembic_config())


@contextmanager
def _alembic_engine(settings: Settings) -> Generator[Config]:
    database = Database(settings.database)
    try:
        database.check()
        config = _alembic_config()
        config.attributes["engine"] = database.engine
        config.attributes["organization"] = settings.organization
        yield config
    finally:
        database.close()


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
