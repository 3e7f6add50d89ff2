"""`burnish limits` and `burnish audit`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import click

from burnish.cli.connection import connect_client
from burnish.cli.output import cell_text, format_time, json_option, limit_option, print_json, print_line, print_table

if TYPE_CHECKING:
    from burnish.resources.limits import LimitChanges

_LIMITS = (
    "stored_bytes",
    "running_jobs",
    "queued_jobs",
    "training_minutes",
    "requests_per_minute",
    "tokens_per_minute",
)


def _parse_limit(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    if value is None or value in ("none", "default"):
        return value
    if not (value.isascii() and value.isdigit()):
        raise click.BadParameter("use a whole number, none (no limit) or default (the service's setting)", param=param)
    return int(value)


def _with_limits(command: Any) -> Any:
    for name in reversed(_LIMITS):
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, name, callback=_parse_limit, metavar="NUMBER|none|default")(command)
    return command


@click.command()
@click.argument("project_id", required=False)
@_with_limits
@json_option
def limits(project_id: str | None, as_json: bool, **options: int | str | None) -> None:
    """Show what a project may use and uses: the key's own, or PROJECT_ID's. With options, set PROJECT_ID's first.

    Another project than one's own, and setting, need a key with the scope admin.
    """
    changes = {name: None if value == "none" else value for name, value in options.items() if value is not None}
    if changes and project_id is None:
        raise click.UsageError("Name the project to set limits for: `burnish projects list` shows all.")
    with connect_client() as client:
        if project_id is None:
            project_limits = client.limits()
        elif changes:
            project_limits = client.projects.update_limits(project_id, **cast("LimitChanges", changes))
        else:
            project_limits = client.projects.limits(project_id)
    if as_json:
        print_json(project_limits)
        return
    rows: list[tuple[object, ...]] = []
    for name in _LIMITS:
        limit = getattr(project_limits, name)
        most = "no limit" if limit.limit is None else limit.limit
        rows.append((name, "" if limit.used is None else f"{limit.used:g}", most, limit.source))
    print_table(("limit of", "used", "most", "set by"), rows)
    if project_limits.training_minutes.resets_at is not None:
        print_line(f"training_minutes begin anew at {format_time(project_limits.training_minutes.resets_at)}.")


@click.command()
@click.option("--type", "event_types", multiple=True, help="Only events of this type; give it once for each.")
@click.option("--project", "project_ids", multiple=True, metavar="ID", help="Only events of this project.")
@click.option("--key", "actor_ids", multiple=True, metavar="ID", help="Only what was done with this API key.")
@click.option("--object", "resource_ids", multiple=True, metavar="ID", help="Only what was done to this object.")
@limit_option
@json_option
def audit(
    event_types: tuple[str, ...],
    project_ids: tuple[str, ...],
    actor_ids: tuple[str, ...],
    resource_ids: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """Show what was changed, by whom, and what was refused, the newest first; needs a key with the scope admin."""
    with connect_client() as client:
        page = client.audit_logs.list(
            event_types=event_types,
            project_ids=project_ids,
            actor_ids=actor_ids,
            resource_ids=resource_ids,
            limit=min(limit, 100),
        )
        entries = list(islice(page, limit))
    if as_json:
        print_json(entries)
        return
    rows = [
        (
            format_time(entry.effective_at),
            entry.type,
            cell_text(entry.object_id),
            f"{entry.outcome} {entry.status_code or ''}".strip() + (f" x{entry.count}" if entry.count > 1 else ""),
            entry.who,
            cell_text(entry.ip_address),
            cell_text(entry.request_id),
        )
        for entry in entries
    ]
    print_table(("when", "what", "id", "outcome", "who", "from", "request"), rows)
