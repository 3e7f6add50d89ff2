"""Sharing: a project lets other projects start from its models and checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session

from service.context import Context
from service.jobs import references
from service.keys import repository as keys
from service.keys.errors import ProjectNotFound
from service.keys.service import Principal
from service.kit.errors import InvalidRequest, NotFound
from service.kit.pagination import Order
from service.models import repository
from service.tables.jobs import JobRow
from service.tables.models import AdapterDownload, CheckpointPermissionRow

ProjectId = Annotated[str, StringConstraints(max_length=64)]


class PermissionNotFound(NotFound):
    """The checkpoint has no such permission."""

    def __init__(self, permission_id: str) -> None:
        super().__init__(f"No such permission of this checkpoint: {permission_id[:64]}", param="permission_id")


class PermissionCreate(BaseModel):
    """The body of a creation: whom the model is shared with."""

    model_config = ConfigDict(extra="forbid")

    project_ids: Annotated[list[ProjectId], Field(min_length=1, max_length=100)]
    adapter_download: AdapterDownload | None = Field(
        None,
        description="Whether these projects may download and export what they train from the model. `allowed` gives "
        "them its weights: a training of one step at a tiny rate returns them nearly unchanged. `blocked` holds for "
        "every model that goes back to this one, over any number of jobs; chats and further jobs may use them. A new "
        "permission is `allowed` without it; one that is there stays as it is, and jobs that were created keep what "
        "held then.",
    )


class PermissionObject(BaseModel):
    """A project's permission to use a checkpoint, in OpenAI's form."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: str
    adapter_download: AdapterDownload

    @classmethod
    def from_row(cls, permission: CheckpointPermissionRow) -> PermissionObject:
        return cls(
            id=permission.id,
            created_at=int(permission.created_at),
            project_id=permission.project_id,
            adapter_download=permission.adapter_download,
        )


class PermissionDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    deleted: Literal[True] = True


def grant_permissions(
    session: Session, principal: Principal, context: Context, name: str, body: PermissionCreate
) -> list[PermissionObject]:
    """Share a model or a checkpoint; a project that has it already keeps its permission.

    Raises ModelNotFound, ProjectNotFound or InvalidRequest, and then shares with no project.
    """
    job = _find_own_job(session, principal, context, name)
    download = body.adapter_download
    # A block is inherited: otherwise a project could pass on what it may not download itself.
    if job.adapter_download == "blocked":
        if download == "allowed":
            raise InvalidRequest(
                f"{name} goes back to a model that another project shared with adapter_download blocked, which holds "
                "for whoever gets it: leave adapter_download out, or set it to blocked.",
                param="adapter_download",
            )
        download = "blocked"
    permissions: list[CheckpointPermissionRow] = []
    # In one transaction: a bad id in the middle raises, and the permissions before it are rolled back.
    for place, project_id in enumerate(dict.fromkeys(body.project_ids)):
        if keys.find_project(session, project_id) is None:
            raise ProjectNotFound(project_id)
        if project_id == principal.project_id:
            raise InvalidRequest(f"{project_id} owns {name} and needs no permission.", param=f"project_ids.{place}")
        permissions.append(repository.share_model(session, job.id, name, project_id, adapter_download=download))
    return [PermissionObject.from_row(permission) for permission in permissions]


def list_permission_page(
    session: Session,
    principal: Principal,
    context: Context,
    name: str,
    *,
    project_id: str | None,
    after: str | None,
    limit: int,
    order: Order,
) -> tuple[list[PermissionObject], bool]:
    """Return one page of a model's permissions. Raises ModelNotFound."""
    _find_own_job(session, principal, context, name)
    rows, has_more = repository.permission_page(
        session, name, project_id=project_id, after=after, limit=limit, order=order
    )
    return [PermissionObject.from_row(row) for row in rows], has_more


def withdraw_permission(
    session: Session, principal: Principal, context: Context, name: str, permission_id: str
) -> None:
    """End a permission; jobs that have started from the model continue. Raises ModelNotFound or PermissionNotFound."""
    _find_own_job(session, principal, context, name)
    if not repository.delete_permission_row(session, name, permission_id):
        raise PermissionNotFound(permission_id)


def _find_own_job(session: Session, principal: Principal, context: Context, name: str) -> JobRow:
    """Return the job of a model of the caller's own."""
    checkpoint = references.find_own(
        session,
        principal.project_id,
        name,
        param="fine_tuned_model_checkpoint",
        bases=[entry.id for entry in context.catalog.models],
    )
    if checkpoint.name != name:
        raise InvalidRequest(
            f"A job is shared by its model's name: {checkpoint.name}.", param="fine_tuned_model_checkpoint"
        )
    return checkpoint.job
