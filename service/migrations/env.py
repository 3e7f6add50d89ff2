"""Alembic's entry: online migrations on the engine that `service.migrations` hands over.

Its attribute `organization` is the setting, for the migration that names jobs by it.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Engine

from service.migrations.tables import TABLES


def _run_migrations() -> None:
    engine: Engine = context.config.attributes["engine"]
    with engine.execution_options(burnish_writes=True).connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            # A change of a table copies and drops it, and with the keys on that would delete the rows of others.
            connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
        with connection.begin():
            context.configure(connection=connection, target_metadata=TABLES[0].metadata, render_as_batch=sqlite)
            with context.begin_transaction():
                context.run_migrations()
            if sqlite and (broken_rows := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
                raise RuntimeError(f"The migration left rows that refer to nothing: {broken_rows[:5]}")


_run_migrations()
