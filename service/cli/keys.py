"""`burnish-server keys`: projects and their API keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from service.cli.database import open_database

if TYPE_CHECKING:
    from service.keys.service import Scope
    from service.tables.keys import ApiKeyRow

MAX_NAME = 64


def parse_name(_ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Return a name of a project or a key. Raises BadParameter if it is empty, too long or not printable."""
    name = value.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise click.BadParameter(f"use 1 to {MAX_NAME} printable characters", param=param)
    return name


def parse_days(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return days as seconds. Raises BadParameter unless they are a number above 0 and up to 3660."""
    if value is None:
        return None
    try:
        days = float(value)
    except ValueError:
        days = 0.0
    if not 0 < days <= 3660:
        raise click.BadParameter("use a number of days above 0 and up to 3660", param=param)
    return days * 24 * 3600


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@click.option("--project", required=True, callback=parse_name, help="The project; created if it is new.")
@click.option("--name", required=True, callback=parse_name, help="What the key is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["read", "write", "admin"]),
    default=("read", "write"),
    show_default=True,
    help="What the key may do; give it once for each. admin manages projects and keys.",
)
@click.option("--expires-in", callback=parse_days, metavar="DAYS", help="Days until the key expires; by default never.")
def create(project: str, name: str, scopes: tuple[Scope, ...], expires_in: float | None) -> None:
    """Make a key and print it; it is kept as a hash and cannot be shown again."""
    from service.audit.service import record_operator
    from service.keys.service import create_key

    with open_database() as (database, settings), database.write() as session:
        key, token = create_key(
            session, settings.hmac_key(), project=project, name=name, scopes=scopes, expires_in=expires_in
        )
        record_operator(session, "api_key.created", object_id=key.id, project_id=key.project_id)
    click.echo(f"Key {key.id} of the project {project}; it is shown only now:", err=True)
    click.echo(token)


@keys.command("list")
def list_keys() -> None:
    """List all keys, the oldest first."""
    from service.keys.repository import list_keys as rows

    with open_database() as (database, _), database.read() as session:
        for key, project in rows(session):
            last_use = "never used" if key.last_used_at is None else f"used {_format_day(key.last_used_at)}"
            columns = (
                key.id,
                project.name,
                key.name,
                key.hint,
                key.scopes,
                _format_day(key.created_at),
                last_use,
                _describe_state(key),
            )
            click.echo("\t".join(columns))


@keys.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Revoke a key at once and for ever."""
    from service.audit.service import record_operator
    from service.keys.repository import mark_revoked as revoke_key
    from service.kit.errors import NotFound

    with open_database() as (database, _), database.write() as session:
        project_id = revoke_key(session, key_id)
        if project_id is None:
            raise NotFound(f"There is no live key '{key_id}'; `burnish-server keys list` shows all.")
        record_operator(session, "api_key.deleted", object_id=key_id, project_id=project_id)
    click.echo(f"Key {key_id} is revoked.")


def _describe_state(key: ApiKeyRow) -> str:
    if key.revoked_at is not None:
        return f"revoked {_format_day(key.revoked_at)}"
    return "live" if key.expires_at is None else f"until {_format_day(key.expires_at)}"


def _format_day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")
