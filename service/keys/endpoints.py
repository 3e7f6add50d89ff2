"""Routes of projects and keys, for keys with the scope `admin`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from service.keys import repository, service
from service.keys.auth import AdminDep, ContextDep, IdempotencyDep, ReadSession, WriteSession
from service.keys.errors import KeyNotFound, NameTaken, ProjectNotFound
from service.keys.schemas import KeyCreate, KeyDeleted, KeyObject, NewKey, ProjectCreate, ProjectObject, ProjectUpdate
from service.kit.declared import declare_errors
from service.kit.pagination import BoundedListPage
from service.kit.routes import CheckedRoute
from service.tables.keys import ProjectRow

router = APIRouter(prefix="/v1/organization/projects", tags=["Administration"], route_class=CheckedRoute)
_UNKNOWN = ProjectNotFound("proj_abc123")
_Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("")
def list_projects(
    session: ReadSession, _admin: AdminDep, after: str | None = None, limit: _Limit = 20
) -> BoundedListPage[ProjectObject]:
    """List all projects, the oldest first."""
    rows, has_more = repository.project_page(session, after=after, limit=limit)
    return BoundedListPage[ProjectObject].from_items([ProjectObject.from_row(row) for row in rows], has_more)


@router.post("", responses=declare_errors(NameTaken("support desk")))
def create_project(
    body: ProjectCreate, session: WriteSession, _admin: AdminDep, idempotency: IdempotencyDep
) -> ProjectObject:
    """Create a project, which owns files, jobs and models."""

    def make_project() -> ProjectObject:
        return ProjectObject.from_row(service.create_project(session, body.name))

    return idempotency.run_once(session, body.model_dump(), ProjectObject, make_project)


@router.get("/{project_id}", responses=declare_errors(_UNKNOWN))
def get_project(project_id: str, session: ReadSession, _admin: AdminDep) -> ProjectObject:
    """Return a project by its id."""
    return ProjectObject.from_row(_require_project(session, project_id))


@router.post("/{project_id}", responses=declare_errors(_UNKNOWN, NameTaken("desk")))
def update_project(project_id: str, body: ProjectUpdate, session: WriteSession, _admin: AdminDep) -> ProjectObject:
    """Give a project another name."""
    project = _require_project(session, project_id)
    if body.name is not None:
        service.rename_project(session, project, body.name)
    return ProjectObject.from_row(project)


@router.get("/{project_id}/api_keys", responses=declare_errors(_UNKNOWN))
def list_keys(
    project_id: str, session: ReadSession, _admin: AdminDep, after: str | None = None, limit: _Limit = 20
) -> BoundedListPage[KeyObject]:
    """List a project's keys, the oldest first, revoked ones too."""
    project = _require_project(session, project_id)
    rows, has_more = repository.key_page(session, project.id, after=after, limit=limit)
    return BoundedListPage[KeyObject].from_items([KeyObject.from_row(row) for row in rows], has_more)


@router.post("/{project_id}/api_keys", responses=declare_errors(_UNKNOWN))
def create_key(
    project_id: str,
    body: KeyCreate,
    session: WriteSession,
    context: ContextDep,
    _admin: AdminDep,
    idempotency: IdempotencyDep,
) -> NewKey:
    """Make a key for a project. Its `value` is in this answer and nowhere else."""
    project = _require_project(session, project_id)

    def make_key() -> NewKey:
        key, token = service.add_key(
            session, context.hmac_key, project, name=body.name, scopes=body.scopes, expires_in=body.expires_in
        )
        return NewKey(**KeyObject.from_row(key).model_dump(), value=token)

    return idempotency.run_once(session, body.model_dump(), NewKey, make_key)


@router.delete("/{project_id}/api_keys/{key_id}", responses=declare_errors(_UNKNOWN, KeyNotFound("key_abc123")))
def revoke_key(project_id: str, key_id: str, session: WriteSession, _admin: AdminDep) -> KeyDeleted:
    """Revoke a key, at once and for ever. It stays in the list."""
    project = _require_project(session, project_id)
    if repository.key_of(session, project.id, key_id) is None or not repository.mark_revoked(session, key_id):
        raise KeyNotFound(key_id)
    return KeyDeleted(id=key_id)


def _require_project(session: Session, project_id: str) -> ProjectRow:
    project = repository.find_project(session, project_id)
    if project is None:
        raise ProjectNotFound(project_id)
    return project
