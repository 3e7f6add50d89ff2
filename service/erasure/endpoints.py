"""The route of a project's deletion, for keys with the scope `admin`."""

from __future__ import annotations

from fastapi import APIRouter

from service.erasure import service
from service.erasure.schemas import ProjectDeleted
from service.keys.auth import AdminDep, ContextDep, WriteSession
from service.keys.errors import ProjectNotFound
from service.kit.declared import declare_errors
from service.kit.errors import Conflict
from service.kit.routes import CheckedRoute

router = APIRouter(prefix="/v1/organization/projects", tags=["Administration"], route_class=CheckedRoute)


class OwnProject(Conflict):
    """A key cannot delete its own project."""

    def __init__(self) -> None:
        super().__init__(
            "This API key belongs to the project itself: delete it with a key of another project, or by "
            "`burnish-server projects delete`.",
            param="project_id",
        )


@router.delete("/{project_id}", responses=declare_errors(ProjectNotFound("proj_abc123"), OwnProject()))
def delete_project(project_id: str, session: WriteSession, context: ContextDep, admin: AdminDep) -> ProjectDeleted:
    """Delete a project: its keys stop and its jobs are cancelled at once, all that it owns is erased minutes later.

    The audit log alone keeps what was done in it.
    """
    if project_id == admin.project_id:
        raise OwnProject
    service.close_project(session, context.settings, project_id)
    return ProjectDeleted(id=project_id)
