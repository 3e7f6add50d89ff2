"""The rules of models."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.bases import repository as bases
from service.bases.live_catalog import LiveCatalog
from service.catalog import BaseModelEntry
from service.keys.service import Principal
from service.models import repository
from service.models.errors import CatalogModel, ModelNotFound
from service.models.schemas import ModelDetail, ModelObject
from service.tables.models import FineTunedModelRow


def list_models(session: Session, principal: Principal, catalog: LiveCatalog, organization: str) -> list[ModelObject]:
    """Return the catalog's bases, then the project's own models and those shared with it, newest first.

    Those of other projects are owned by `organization`: who shares is for the two projects to know.
    """
    own = repository.all_of(session, principal.project_id)
    shared = repository.fetch_shared_models(session, principal.project_id)
    return [
        *(ModelObject.of_base(base) for base in catalog.models),
        *(ModelObject.of_result(model, owned_by=model.project_id) for model in own),
        *(ModelObject.of_result(model, owned_by=organization) for model in shared),
    ]


def show_model(
    session: Session, principal: Principal, catalog: LiveCatalog, organization: str, name: str
) -> ModelDetail:
    """Return one model, as `list_models` does, or a checkpoint of the project's own. Raises ModelNotFound."""
    base = catalog.find_base(name)
    if base is not None:
        return _show_base(session, base)
    return ModelDetail.model_validate(_show_result(session, principal, catalog, organization, name).model_dump())


def _show_base(session: Session, base: BaseModelEntry) -> ModelDetail:
    row = bases.find_base_row(session, base.id)
    problem = row.problem if row is not None and row.fingerprint == base.fingerprint else None
    return ModelDetail(**ModelObject.of_base(base).model_dump(), card=bases.card_of(row, base), problem=problem)


def _show_result(
    session: Session, principal: Principal, catalog: LiveCatalog, organization: str, name: str
) -> ModelObject:
    shared_rows = repository.fetch_shared_models(session, principal.project_id)
    foreign = next((model for model in shared_rows if model.id == name), None)
    if foreign is not None:
        return ModelObject.of_result(foreign, owned_by=organization)
    checkpoint = repository.get_project_checkpoint(session, principal.project_id, name)
    if checkpoint is not None:
        return ModelObject.of_checkpoint(name, checkpoint, owned_by=principal.project_id)
    return ModelObject.of_result(_find_result(session, principal, catalog, name), owned_by=principal.project_id)


def remove_model(session: Session, principal: Principal, catalog: LiveCatalog, name: str) -> None:
    """Take a fine-tuned model off the list; its job and artifacts stay. Raises Conflict for a base, ModelNotFound."""
    if catalog.find_base(name) is not None:
        raise CatalogModel(name)
    repository.delete_model_row(session, _find_result(session, principal, catalog, name))


def _find_result(session: Session, principal: Principal, catalog: LiveCatalog, name: str) -> FineTunedModelRow:
    model = repository.get_project_model(session, principal.project_id, name)
    if model is None:
        raise ModelNotFound(name, (base.id for base in catalog.models))
    return model
