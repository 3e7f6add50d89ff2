"""Routes of projects and keys, for keys with the scope `admin`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from service.keys import repository, service
from service.keys.auth import AdminDep, ContextDep, IdempotencyDep, ReadSession, WriteSession
from service.keys.errors import KeyNotFound, NameTaken, ProjectNotFound
from service.keys.schemas import KeyCreate, KeyDeleted, KeyObject, NewKey, ProjectCreate, ProjectObject, ProjectUpdate
from service.keys.tables import Project
from service.kit.declared import refuses
from service.kit.pagination import BoundedListPage
from service.kit.routes import CheckedRoute

router = APIRouter(prefix="/v1/organization/projects", tags=["Administration"], route_class=CheckedRoute)
_UNKNOWN = ProjectNotFound("proj_abc123")
_Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("")
def list_projects(
    session: ReadSession, _admin: AdminDep, after: str | None = None, limit: _Limit = 20
) -> BoundedListPage[ProjectObject]:
    """List all projects, the oldest first."""
    rows, has_more = repository.project_page(session, after=after, limit=limit)
    return BoundedListPage[ProjectObject].of([ProjectObject.of(row) for row in rows], has_more)


@router.post("", responses=refuses(NameTaken("support desk")))
def create_project(
    body: ProjectCreate, session: WriteSession, _admin: AdminDep, idempotency: IdempotencyDep
) -> ProjectObject:
    """Make a project."""

    def create() -> ProjectObject:
        return ProjectObject.of(service.create_project(session, body.name))

    return idempotency.once(session, body.model_dump(), ProjectObject, create)


@router.get("/{project_id}", responses=refuses(_UNKNOWN))
def get_project(project_id: str, session: ReadSession, _admin: AdminDep) -> ProjectObject:
    """Return a project."""
    return ProjectObject.of(_project(session, project_id))


@router.post("/{project_id}", responses=refuses(_UNKNOWN, NameTaken("desk")))
def update_project(project_id: str, body: ProjectUpdate, session: WriteSession, _admin: AdminDep) -> ProjectObject:
    """Give a project another name."""
    project = _project(session, project_id)
    if body.name is not None:
        service.rename_project(session, project, body.name)
    return ProjectObject.of(project)


@router.get("/{project_id}/api_keys", responses=refuses(_UNKNOWN))
def list_keys(
    project_id: str, session: ReadSession, _admin: AdminDep, after: str | None = None, limit: _Limit = 20
) -> BoundedListPage[KeyObject]:
    """List a project's keys, the oldest first, revoked ones too."""
    project = _project(session, project_id)
    rows, has_more = repository.key_page(session, project.id, after=after, limit=limit)
    return BoundedListPage[KeyObject].of([KeyObject.of(row) for row in rows], has_more)


@router.post("/{project_id}/api_keys", responses=refuses(_UNKNOWN))
def create_key(
    project_id: str,
    body: KeyCreate,
    session: WriteSession,
    context: ContextDep,
    _admin: AdminDep,
    idempotency: IdempotencyDep,
) -> NewKey:
    """Make a key for a project. Its `value` is in this answer and nowhere else."""
    project = _project(session, project_id)

    def create() -> NewKey:
        key, token = service.add_key(
            session, context.hmac_key, project, name=body.name, scopes=body.scopes, expires_in=body.expires_in
        )
        return NewKey(**KeyObject.of(key).model_dump(), value=token)

    return idempotency.once(session, body.model_dump(), NewKey, create)


@router.delete("/{project_id}/api_keys/{key_id}", responses=refuses(_UNKNOWN, KeyNotFound("key_abc123")))
def revoke_key(project_id: str, key_id: str, session: WriteSession, _admin: AdminDep) -> KeyDeleted:
    """Revoke a key, at once and for ever. It stays in the list."""
    project = _project(session, project_id)
    if repository.key_of(session, project.id, key_id) is None or not repository.revoke(session, key_id):
        raise KeyNotFound(key_id)
    return KeyDeleted(id=key_id)


def _project(session: Session, project_id: str) -> Project:
    project = repository.project(session, project_id)
    if project is None:
        raise ProjectNotFound(project_id)
    return project
