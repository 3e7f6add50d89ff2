"""`burnish-server keys`: projects and their API keys."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from service.kit.db import Database

MAX_NAME = 64


def checked_name(_ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Return a name of a project or a key. Raises BadParameter where it is empty, too long or not printable."""
    name = value.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise click.BadParameter(f"use 1 to {MAX_NAME} printable characters", param=param)
    return name


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@click.option("--project", required=True, callback=checked_name, help="The project; made if it is new.")
@click.option("--name", required=True, callback=checked_name, help="What the key is for.")
def create(project: str, name: str) -> None:
    """Make a key and print it; it is kept as a hash and cannot be shown again."""
    from service.keys.service import create_key
    from service.kit.settings import load_settings

    settings = load_settings()
    with _database() as database, database.write() as session:
        key, token = create_key(session, settings.hmac_key(), project=project, name=name)
    click.echo(f"Key {key.id} of the project {project}; it is shown only now:", err=True)
    click.echo(token)


@keys.command("list")
def list_keys() -> None:
    """List all keys, the oldest first."""
    from service.keys.repository import list_keys as rows

    with _database() as database, database.read() as session:
        for key, project in rows(session):
            state = "live" if key.revoked_at is None else f"revoked {_day(key.revoked_at)}"
            columns = (key.id, project.name, key.name, key.hint, _day(key.created_at), state)
            click.echo("\t".join(columns))


@keys.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Revoke a key at once and for ever."""
    from service.keys.repository import revoke as revoke_key
    from service.kit.errors import NotFound

    with _database() as database, database.write() as session:
        if not revoke_key(session, key_id):
            raise NotFound(f"There is no live key '{key_id}'; `burnish-server keys list` shows all.")
    click.echo(f"Key {key_id} is revoked.")


@contextmanager
def _database() -> Generator[Database]:
    from service import migrations
    from service.kit.db import Database
    from service.kit.settings import load_settings

    settings = load_settings()
    migrations.check(settings)
    database = Database(settings.database)
    try:
        yield database
    finally:
        database.close()


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")
