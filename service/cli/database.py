"""The database for commands that work on it directly."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.kit.db import Database
    from service.kit.settings import Settings


@contextmanager
def open_database() -> Generator[tuple[Database, Settings]]:
    """Open the database that the settings name, and give the settings too. Raises SettingsError, Unavailable."""
    from service import migrations
    from service.kit.db import Database
    from service.kit.settings import load_settings

    settings = load_settings()
    migrations.check_schema(settings)
    database = Database(settings.database)
    try:
        yield database, settings
    finally:
        database.close()
