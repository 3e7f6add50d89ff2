"""Routes of limits: a project sees its own, keys with the scope `admin` see and set those of all."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy.orm import Session

from service.keys import repository as keys
from service.keys.auth import AdminDep, ContextDep, PrincipalDep, ReadSession, WriteSession
from service.keys.errors import ProjectNotFound
from service.kit.declared import declare_errors
from service.kit.routes import CheckedRoute
from service.limits import service
from service.limits.rates import RateBookDep
from service.limits.schemas import LimitsObject, LimitsUpdate
from service.limits.values import QuotaLimits

router = APIRouter(prefix="/v1", tags=["Administration"], route_class=CheckedRoute)
_UNKNOWN = declare_errors(ProjectNotFound("proj_abc123"))


@router.get("/limits")
def get_own_limits(session: ReadSession, context: ContextDep, principal: PrincipalDep) -> LimitsObject:
    """Return the limits of the key's project and how much of each is used."""
    return service.show_limits(session, QuotaLimits.from_settings(context.settings), principal.project_id)


@router.get("/organization/projects/{project_id}/limits", responses=_UNKNOWN)
def get_limits(project_id: str, session: ReadSession, context: ContextDep, _admin: AdminDep) -> LimitsObject:
    """Return the limits of a project and how much of each is used."""
    return service.show_limits(
        session, QuotaLimits.from_settings(context.settings), _require_project(session, project_id)
    )


@router.post("/organization/projects/{project_id}/limits", responses=_UNKNOWN)
def update_limits(
    project_id: str,
    body: LimitsUpdate,
    session: WriteSession,
    context: ContextDep,
    _admin: AdminDep,
    book: RateBookDep,
) -> LimitsObject:
    """Set limits of a project in place of the service's defaults. Jobs that run go on whatever the limits are."""
    service.change_limits(session, _require_project(session, project_id), body)
    book.forget_limits(project_id)
    return service.show_limits(session, QuotaLimits.from_settings(context.settings), project_id)


def _require_project(session: Session, project_id: str) -> str:
    if keys.find_project(session, project_id) is None:
        raise ProjectNotFound(project_id)
    return project_id
