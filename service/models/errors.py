"""Errors of models: unknown ones, and bases that cannot be deleted."""

from __future__ import annotations

from collections.abc import Iterable

from service.kit.errors import Conflict, NotFound


class ModelNotFound(NotFound):
    """No base of the catalog and no fine-tuned model of this project has the name."""

    def __init__(self, name: str, bases: Iterable[str], *, param: str = "model") -> None:
        super().__init__(
            f"The model '{name[:256]}' does not exist here or you do not have access to it. "
            f"Base models of this service: {', '.join(bases) or 'none'}.",
            param=param,
            code="model_not_found",
        )


class CatalogModel(Conflict):
    """The model is a base of the catalog, which the operator keeps."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"'{name}' is a base model of the catalog; only fine-tuned models can be deleted.", param="model"
        )
