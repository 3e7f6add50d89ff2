"""Errors of models."""

from __future__ import annotations

from collections.abc import Iterable

from service.kit.errors import NotFound


class ModelNotFound(NotFound):
    """No base of the catalog and no fine-tuned model of this project has the name."""

    def __init__(self, name: str, bases: Iterable[str], *, param: str = "model") -> None:
        super().__init__(
            f"The model '{name[:256]}' does not exist here or you do not have access to it. "
            f"Base models of this service: {', '.join(bases) or 'none'}.",
            param=param,
            code="model_not_found",
        )
