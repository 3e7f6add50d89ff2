"""The route of the audit log, for keys with the scope `admin`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import StringConstraints

from service.audit import repository
from service.audit.repository import AuditRowFilter
from service.audit.schemas import AuditLogObject
from service.keys.auth import AdminDep, ReadSession
from service.kit.pagination import BoundedListPage
from service.kit.routes import CheckedRoute

router = APIRouter(prefix="/v1/organization/audit_logs", tags=["Administration"], route_class=CheckedRoute)

_Text = Annotated[str, StringConstraints(max_length=320)]


def _read_audit_filter(
    event_types: Annotated[list[_Text], Query(alias="event_types[]", max_length=100)] = [],  # noqa: B006
    project_ids: Annotated[list[_Text], Query(alias="project_ids[]", max_length=100)] = [],  # noqa: B006
    actor_ids: Annotated[list[_Text], Query(alias="actor_ids[]", max_length=100)] = [],  # noqa: B006
    resource_ids: Annotated[list[_Text], Query(alias="resource_ids[]", max_length=100)] = [],  # noqa: B006
    later: Annotated[int | None, Query(alias="effective_at[gt]", ge=0, le=2**53)] = None,
    since: Annotated[int | None, Query(alias="effective_at[gte]", ge=0, le=2**53)] = None,
    earlier: Annotated[int | None, Query(alias="effective_at[lt]", ge=0, le=2**53)] = None,
    until: Annotated[int | None, Query(alias="effective_at[lte]", ge=0, le=2**53)] = None,
) -> AuditRowFilter:
    return AuditRowFilter(
        types=event_types,
        project_ids=project_ids,
        key_ids=actor_ids,
        object_ids=resource_ids,
        after_time=later,
        from_time=since,
        before_time=earlier,
        until_time=until,
    )


@router.get("")
def list_audit_logs(
    session: ReadSession,
    _admin: AdminDep,
    row_filter: Annotated[AuditRowFilter, Depends(_read_audit_filter)],
    after: str | None = None,
    before: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> BoundedListPage[AuditLogObject]:
    """List what was changed, by whom, and what was refused; newest first, of all projects."""
    rows, has_more = repository.fetch_audit_page(session, row_filter, after=after, before=before, limit=limit)
    names = repository.project_names(session, [row.project_id for row in rows if row.project_id])
    return BoundedListPage[AuditLogObject].from_items([AuditLogObject.from_row(row, names) for row in rows], has_more)
