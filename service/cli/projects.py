"""`burnish-server projects`: the projects, their limits, and their deletion."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from service.cli.database import open_database

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from service.tables.keys import ProjectRow

_LIMITS = (
    "stored_bytes",
    "running_jobs",
    "queued_jobs",
    "training_minutes",
    "requests_per_minute",
    "tokens_per_minute",
)


@click.group()
def projects() -> None:
    """List projects, show and set their limits, delete them."""


@projects.command("list")
def list_projects() -> None:
    """List all projects, the oldest first."""
    from service.keys.repository import all_projects as rows

    with open_database() as (database, _), database.read() as session:
        for project in rows(session):
            day = datetime.fromtimestamp(project.created_at, UTC).strftime("%Y-%m-%d")
            click.echo(f"{project.id}\t{project.name}\t{day}")


def _parse_limit(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    if value is None or value in ("none", "default"):
        return value
    if not (value.isascii() and value.isdigit()):
        raise click.BadParameter("use a whole number, none (no limit) or default (the setting's)", param=param)
    return int(value)


def _with_limits(command: Any) -> Any:
    for name in reversed(_LIMITS):
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, name, callback=_parse_limit, metavar="NUMBER|none|default")(command)
    return command


@projects.command("limits")
@click.argument("project")
@_with_limits
def limits(project: str, **options: int | str | None) -> None:
    """Show what PROJECT (its id or name) may use and uses; with options, set limits first."""
    from service.audit.service import record_operator
    from service.limits import service
    from service.limits.schemas import LimitsUpdate
    from service.limits.values import QuotaLimits

    changes = {name: None if value == "none" else value for name, value in options.items() if value is not None}
    with open_database() as (database, settings), database.write() as session:
        project_id = _find_project(session, project).id
        if changes:
            service.change_limits(session, project_id, _validate_values(LimitsUpdate, changes))
            record_operator(session, "project.limits.updated", object_id=project_id, project_id=project_id)
        limits_by_name = service.show_limits(session, QuotaLimits.from_settings(settings), project_id).model_dump()
    for name in _LIMITS:
        limit = "none" if limits_by_name[name]["limit"] is None else str(limits_by_name[name]["limit"])
        usage = f"{limits_by_name[name]['used']:g}" if "used" in limits_by_name[name] else "—"
        click.echo(f"{name}\t{usage} of {limit}\t({limits_by_name[name]['source']})")


@projects.command("delete")
@click.argument("project")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(project: str, yes: bool) -> None:
    """Delete PROJECT (its id or name) with everything it owns; the audit log alone keeps what was done in it."""
    from service.audit.service import record_operator
    from service.erasure.service import close_project

    with open_database() as (database, settings):
        with database.read() as session:
            project_row = _find_project(session, project)
        if not yes:
            click.confirm(
                f"Delete {project_row.name} ({project_row.id}) with all its files, jobs, models and keys?", abort=True
            )
        with database.write() as session:
            close_project(session, settings, project_row.id)
            record_operator(session, "project.deleted", object_id=project_row.id, project_id=project_row.id)
    click.echo(
        f"Project {project_row.name} ({project_row.id}) is deleted; the controller erases what it owns in some minutes."
    )


def _find_project(session: Session, text: str) -> ProjectRow:
    """Return a project by its id or its name. Raises NotFound."""
    from service.keys.repository import find_project, project_by_name
    from service.kit.errors import NotFound

    project = find_project(session, text) or project_by_name(session, text)
    if project is None:
        raise NotFound(f"There is no project '{text}'; `burnish-server projects list` shows all.")
    return project


def _validate_values(model: Any, values: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from service.kit.errors import InvalidRequest

    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise InvalidRequest(f"--{name}: {first['msg']}.") from error
