"""Alembic's entry: online migrations on the engine that `service.migrations` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Engine

from service.migrations.tables import TABLES


def _run() -> None:
    engine: Engine = context.config.attributes["engine"]
    with engine.execution_options(burnish_writes=True).begin() as connection:
        context.configure(
            connection=connection,
            target_metadata=TABLES[0].metadata,
            render_as_batch=connection.dialect.name == "sqlite",
        )
        with context.begin_transaction():
            context.run_migrations()


_run()
