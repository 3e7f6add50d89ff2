"""The database's schema by Alembic: `upgrade` brings it to this version, `move` to any, `check` looks where it is."""

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
    """The data does not fit the schema that was asked for; the message says what to do. Nothing was changed."""


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Bring the schema to this version, or to an earlier `revision`.

    Raises Unavailable where the database does not answer.
    """
    with _engine(settings) as config:
        command.upgrade(config, revision)


def move(settings: Settings, revision: str) -> None:
    """Bring the schema to `revision`, forth or back, in one transaction.

    Raises MigrationRefused where there is no such revision or the data does not fit it, Unavailable.
    """
    if not knows(revision):
        known = ", ".join(sorted(_revisions()))
        raise MigrationRefused(f"There is no schema {revision}; this release knows {known}.")
    back = revision in {entry.revision for entry in _scripts().iterate_revisions(_current(settings), "base")}
    with _engine(settings) as config:
        try:
            (command.downgrade if back else command.upgrade)(config, revision)
        except RuntimeError as error:
            raise MigrationRefused(str(error)) from error


def head() -> str:
    """Return this version's schema revision."""
    revision = _scripts().get_current_head()
    assert revision is not None
    return revision


def knows(revision: str) -> bool:
    """Tell whether this version can come from that schema."""
    return revision in _revisions()


def check(settings: Settings) -> None:
    """Raise SettingsError unless the schema is this version's, Unavailable where the database does not answer."""
    current = _current(settings)
    if current != head():
        raise SettingsError(
            f"The database's schema is at {current or 'nothing'}, this version needs {head()}. "
            "Run `burnish-server migrate` first."
        )


def _current(settings: Settings) -> str | None:
    database = Database(settings.database)
    try:
        with database.read() as session:
            return MigrationContext.configure(session.connection()).get_current_revision()
    finally:
        database.close()


def _revisions() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


@contextmanager
def _engine(settings: Settings) -> Generator[Config]:
    database = Database(settings.database)
    try:
        database.check()
        config = _config()
        config.attributes["engine"] = database.engine
        yield config
    finally:
        database.close()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
