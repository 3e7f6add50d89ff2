"""Errors of exports: unknown ones, and exports or models that are not ready."""

from __future__ import annotations

from service.kit.errors import Conflict, NotFound


class ExportNotFound(NotFound):
    """The model has no such export."""

    def __init__(self, export_id: str) -> None:
        super().__init__(f"No such export of this model: {export_id[:64]}", param="export_id")


class ExportNotReady(Conflict):
    """There is nothing to download, or not yet."""

    def __init__(self, export_id: str, status: str, reason: str | None) -> None:
        why = f"it failed: {reason}" if reason else f"its status is {status}. Ask again until it is ready."
        super().__init__(f"The export {export_id} cannot be downloaded: {why}", code="not_ready")


class ModelNotReady(Conflict):
    """The model does not exist yet."""

    def __init__(self, model: str, job_id: str, state: str) -> None:
        super().__init__(
            f"{model} is not there yet: its job {job_id} is {state}. Export one of its checkpoints, or wait for it.",
            param="model",
            code="not_ready",
        )
