"""Routes of permissions of models and checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from service.jobs import permissions
from service.jobs.errors import ParentFailed
from service.jobs.permissions import PermissionCreate, PermissionDeleted, PermissionNotFound, PermissionObject
from service.keys.auth import ContextDep, IdempotencyDep, PrincipalDep, ReadSession, WriteSession
from service.keys.errors import ProjectNotFound
from service.kit.declared import declare_errors
from service.kit.pagination import BoundedListPage
from service.kit.routes import CheckedRoute
from service.models.errors import ModelNotFound

router = APIRouter(
    prefix="/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions",
    tags=["Fine-tuning"],
    route_class=CheckedRoute,
)
_UNKNOWN = ModelNotFound("ft:tiny:burnish::abc12345", ["tiny"], param="fine_tuned_model_checkpoint")
_ENDED = ParentFailed("ftjob-abc123", "failed", param="fine_tuned_model_checkpoint")
_Page = BoundedListPage[PermissionObject]


@router.get("", responses=declare_errors(_UNKNOWN, _ENDED))
def list_permissions(
    fine_tuned_model_checkpoint: str,
    session: ReadSession,
    context: ContextDep,
    principal: PrincipalDep,
    project_id: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    order: Literal["ascending", "descending"] = "descending",
) -> BoundedListPage[PermissionObject]:
    """List the projects that a model or a checkpoint is shared with."""
    data, has_more = permissions.list_permission_page(
        session,
        principal,
        context,
        fine_tuned_model_checkpoint,
        project_id=project_id,
        after=after,
        limit=limit,
        order="asc" if order == "ascending" else "desc",
    )
    return _Page.from_items(data, has_more)


@router.post("", responses=declare_errors(_UNKNOWN, ProjectNotFound("proj_abc123"), _ENDED))
def create_permissions(
    fine_tuned_model_checkpoint: str,
    body: PermissionCreate,
    session: WriteSession,
    context: ContextDep,
    principal: PrincipalDep,
    idempotency: IdempotencyDep,
) -> BoundedListPage[PermissionObject]:
    """Share a model or a checkpoint of one's own with other projects: they may chat with it and start jobs from it.

    What those jobs leave can be downloaded by the projects that own them, and with it, in effect, the shared weights,
    unless `adapter_download` is `blocked`.
    """

    def make_permissions() -> BoundedListPage[PermissionObject]:
        data = permissions.grant_permissions(session, principal, context, fine_tuned_model_checkpoint, body)
        return _Page.from_items(data, has_more=False)

    return idempotency.run_once(session, body.model_dump(), _Page, make_permissions)


@router.delete("/{permission_id}", responses=declare_errors(_UNKNOWN, PermissionNotFound("cp_abc123"), _ENDED))
def delete_permission(
    fine_tuned_model_checkpoint: str,
    permission_id: str,
    session: WriteSession,
    context: ContextDep,
    principal: PrincipalDep,
) -> PermissionDeleted:
    """End a permission. Jobs that started from the model meanwhile keep what they have."""
    permissions.withdraw_permission(session, principal, context, fine_tuned_model_checkpoint, permission_id)
    return PermissionDeleted(id=permission_id)
