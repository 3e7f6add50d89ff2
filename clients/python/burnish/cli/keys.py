"""`burnish projects` and `burnish keys`, for keys with the scope `admin`."""

from __future__ import annotations

from itertools import islice

import click

from burnish.cli.connection import connect_client
from burnish.cli.output import cell_text, format_time, json_option, limit_option, print_json, print_line, print_table

_DAY = 24 * 3600


@click.group()
def projects() -> None:
    """Show and make projects; needs a key with the scope admin."""


@projects.command("list")
@limit_option
@json_option
def list_projects(limit: int, as_json: bool) -> None:
    """List all projects, the oldest first."""
    with connect_client() as client:
        page = list(islice(client.projects.list(limit=min(limit, 100)), limit))
    if as_json:
        print_json(page)
    else:
        print_table(("id", "name", "created"), [(p.id, p.name, format_time(p.created_at)) for p in page])


@projects.command("create")
@click.argument("name")
@json_option
def create_project(name: str, as_json: bool) -> None:
    """Create a project; it has no keys yet."""
    with connect_client() as client:
        project = client.projects.create(name=name)
    print_json(project) if as_json else print_line(project.id)


@projects.command("delete")
@click.argument("project_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete_project(project_id: str, yes: bool, as_json: bool) -> None:
    """Delete a project with all its files, jobs, models and keys; the server erases the data some minutes later."""
    with connect_client() as client:
        project = client.projects.retrieve(project_id)
        if not yes:
            click.confirm(
                f"Delete {cell_text(project.name)} ({cell_text(project.id)}) with everything it owns?",
                abort=True,
                err=True,
            )
        deletion = client.projects.delete(project_id)
    print_json(deletion) if as_json else print_line(f"{deletion.id}: deleted")


@click.group()
def keys() -> None:
    """Make, list and revoke a project's API keys; needs a key with the scope admin."""


@keys.command("list")
@click.argument("project_id")
@limit_option
@json_option
def list_keys(project_id: str, limit: int, as_json: bool) -> None:
    """List a project's keys, the oldest first."""
    with connect_client() as client:
        page = list(islice(client.projects.list_keys(project_id, limit=min(limit, 100)), limit))
    if as_json:
        print_json(page)
        return
    rows = [
        (
            key.id,
            key.name,
            key.redacted_value,
            " ".join(key.scopes),
            format_time(key.last_used_at) if key.last_used_at else "never",
            f"revoked {format_time(key.revoked_at)}"
            if key.revoked_at
            else format_time(key.expires_at)
            if key.expires_at
            else "—",
        )
        for key in page
    ]
    print_table(("id", "name", "key", "scopes", "last used", "ends"), rows)


@keys.command("create")
@click.argument("project_id")
@click.option("--name", required=True, help="What the key is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["read", "write", "admin"]),
    default=("read", "write"),
    show_default=True,
    help="What the key may do; give it once for each.",
)
@click.option("--expires-in", type=click.FloatRange(0, 3660, min_open=True), metavar="DAYS", help="Never if left out.")
@json_option
def create_key(project_id: str, name: str, scopes: tuple[str, ...], expires_in: float | None, as_json: bool) -> None:
    """Make a key and print it; it cannot be shown again."""
    seconds = None if expires_in is None else round(expires_in * _DAY)
    with connect_client() as client:
        key = client.projects.create_key(project_id, name=name, scopes=scopes, expires_in=seconds)
    if as_json:
        print_json(key)
    else:
        print_line(f"Key {key.id}; it is shown only now:", err=True)
        print_line(cell_text(key.value))


@keys.command("revoke")
@click.argument("project_id")
@click.argument("key_id")
@json_option
def revoke_key(project_id: str, key_id: str, as_json: bool) -> None:
    """Revoke a key, at once and for ever."""
    with connect_client() as client:
        deletion = client.projects.revoke_key(project_id, key_id)
    print_json(deletion) if as_json else print_line(f"{deletion.id}: revoked")
