"""Routes of models: bases, results of jobs and what other projects share."""

from __future__ import annotations

from fastapi import APIRouter

from service.keys.auth import ContextDep, PrincipalDep, ReadSession, WriteSession
from service.kit.declared import declare_errors
from service.kit.routes import CheckedRoute
from service.models import service
from service.models.errors import CatalogModel, ModelNotFound
from service.models.schemas import ModelDeleted, ModelDetail, ModelList

router = APIRouter(prefix="/v1/models", tags=["Models"], route_class=CheckedRoute)
_UNKNOWN = ModelNotFound("ft:tiny:burnish::abc12345", ["smollm2-135m-instruct"])


@router.get("")
def list_models(session: ReadSession, context: ContextDep, principal: PrincipalDep) -> ModelList:
    """List the base models and the project's fine-tuned ones."""
    return ModelList(data=service.list_models(session, principal, context.catalog, context.settings.organization))


@router.get("/{model}", responses=declare_errors(_UNKNOWN))
def get_model(model: str, session: ReadSession, context: ContextDep, principal: PrincipalDep) -> ModelDetail:
    """Return a model that the key's project may use; a base with its card: what it can do, and what that takes."""
    return service.show_model(session, principal, context.catalog, context.settings.organization, model)


@router.delete("/{model}", responses=declare_errors(_UNKNOWN, CatalogModel("smollm2-135m-instruct")))
def delete_model(model: str, session: WriteSession, context: ContextDep, principal: PrincipalDep) -> ModelDeleted:
    """Delete a fine-tuned model."""
    service.remove_model(session, principal, context.catalog, model)
    return ModelDeleted(id=model)
