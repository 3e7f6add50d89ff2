"""The rules of exports: what can be exported as what, and that the same is made once."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from service.bases import repository as bases
from service.context import Context
from service.exports import lifecycle, repository
from service.exports.errors import ExportNotFound, ExportNotReady, ModelNotReady
from service.exports.schemas import ExportCreate
from service.files.downloads import Attachment
from service.jobs import base_fit, references
from service.jobs.errors import DownloadBlocked
from service.jobs.references import EarlierResult
from service.keys.service import Principal
from service.kit import ids
from service.kit.errors import InvalidRequest
from service.kit.fair_turns import TurnsExhausted
from service.limits import repository as limits
from service.models.errors import ModelNotFound
from service.tables.exports import AS_STORED, ExportStatus, ModelExportRow
from trainer.contract.methods.base import Kinds

_DEFAULTS = {"merged": "bf16", "gguf": "f16"}
_RETRY_SECONDS = 30.0
"""About what a small model takes to be exported."""
_PRECISIONS = {"merged": ("f32", "f16", "bf16"), "gguf": ("f32", "f16", "bf16", "q8_0")}


def request_export(
    session: Session, principal: Principal, context: Context, name: str, body: ExportCreate
) -> ModelExportRow:
    """Ask for an export; one that is there already is returned and kept longer, one that failed is made anew.

    Raises ModelNotFound, ModelNotReady, DownloadBlocked, InvalidRequest, or TurnsExhausted if too many exports of the
    project wait.
    """
    result = find_model(session, principal, context, name)
    _require_download(result)
    precision = _check_precision(result.kind, body)
    _check_format(session, context, result, body)
    if references.locate_result(session, result.job.id, result.step) is None:
        raise ModelNotFound(name, (base.id for base in context.catalog.models))
    expires_in = body.expires_after.seconds if body.expires_after else context.settings.export_seconds
    same_export = repository.find_same_export(session, result.name, body.format, precision)
    if same_export is not None and same_export.status == ExportStatus.FAILED:
        lifecycle.remove_export(session, same_export, context.settings)
        same_export = None
    if same_export is None:
        require_place(session, principal.project_id, context.settings.max_queued_exports)
        repository.add_export(
            session,
            expires_in=expires_in,
            id=ids.new_id(ids.EXPORT),
            project_id=principal.project_id,
            model=result.name,
            job_id=result.job.id,
            step=result.step,
            format=body.format,
            precision=precision,
            filename=_make_filename(result.name, body.format, precision),
        )
        same_export = repository.find_same_export(session, result.name, body.format, precision)
        assert same_export is not None
    repository.prolong_export(session, same_export, expires_in=expires_in)
    return same_export


def find_model(session: Session, principal: Principal, context: Context, name: str) -> EarlierResult:
    """Return a fine-tuned model or checkpoint of the project's own. Raises ModelNotFound, ModelNotReady,
    ParentFailed, or InvalidRequest for a base model or an unknown checkpoint.
    """
    if context.catalog.find_base(name) is not None:
        raise InvalidRequest(
            f"{name} is a base model of the catalog; fine-tuned models and their checkpoints are exported.",
            param="model",
        )
    result = references.find_own(
        session,
        principal.project_id,
        name,
        param="model",
        bases=[base.id for base in context.catalog.models],
    )
    if result.waits:
        raise ModelNotReady(result.name, result.job.id, result.job.state)
    return result


def list_export_page(
    session: Session, principal: Principal, context: Context, name: str, *, after: str | None, limit: int
) -> tuple[Sequence[ModelExportRow], bool]:
    """Return one page of a model's exports. Raises as `find_model` does."""
    result = find_model(session, principal, context, name)
    return repository.fetch_export_page(session, principal.project_id, result.name, after=after, limit=limit)


def find_export(session: Session, principal: Principal, context: Context, name: str, export_id: str) -> ModelExportRow:
    """Return an export. Raises ExportNotFound, and as `find_model` does."""
    result = find_model(session, principal, context, name)
    export = repository.get_export(session, principal.project_id, result.name, export_id)
    if export is None:
        raise ExportNotFound(export_id)
    return export


def find_content(session: Session, principal: Principal, context: Context, name: str, export_id: str) -> Attachment:
    """Return an export as it is downloaded. Raises DownloadBlocked, ExportNotReady, and as `find_export` does."""
    export = find_export(session, principal, context, name, export_id)
    _require_download(find_model(session, principal, context, name))
    return make_attachment(export)


def _require_download(result: EarlierResult) -> None:
    if result.adapter_download == "blocked":
        raise DownloadBlocked(result.name)


def remove_export(session: Session, principal: Principal, context: Context, name: str, export_id: str) -> None:
    """Delete an export, and end the making of it. Raises as `find_export` does."""
    lifecycle.remove_export(session, find_export(session, principal, context, name, export_id), context.settings)


def make_attachment(export: ModelExportRow) -> Attachment:
    """Return an export as it is downloaded. Raises ExportNotReady."""
    if export.status != ExportStatus.READY:
        raise ExportNotReady(export.id, export.status, (export.error or {}).get("message"))
    assert export.blob_key is not None
    assert export.bytes is not None
    assert export.sha256 is not None
    media_type = "application/octet-stream" if export.format == "gguf" else "application/zip"
    return Attachment(export.blob_key, export.filename, media_type, export.bytes, export.sha256)


def require_place(session: Session, project_id: str, most: int) -> None:
    """Raise TurnsExhausted if as many exports of a project wait as may; two requests cannot both get the last place."""
    limits.lock_project(session, project_id)
    if repository.count_queued(session, project_id) >= most:
        raise TurnsExhausted("exports", most, retry_after=_RETRY_SECONDS)


def _check_format(session: Session, context: Context, result: EarlierResult, body: ExportCreate) -> None:
    """Raise InvalidRequest for a GGUF that nobody could write, which the base's card says."""
    if body.format != "gguf" or result.kind == "reward":
        return
    entry = context.catalog.find_base(result.job.base)
    card = entry and bases.card_of(bases.find_base_row(session, entry.id), entry)
    refusal = base_fit.explain_no_gguf(card, result.job.base)
    if refusal is not None:
        raise InvalidRequest(f"{refusal} Export it as merged or adapter.", param="format", code="unsupported_export")


def _check_precision(kind: Kinds, body: ExportCreate) -> str:
    """Return the precision. Raises InvalidRequest if the model has no such form."""
    if body.format == "adapter":
        if kind == "model":
            raise InvalidRequest(
                "The job trained all weights, so there is no adapter: export it as merged or gguf.", param="format"
            )
        if body.precision is not None:
            raise InvalidRequest("An adapter is packed as it was trained: leave precision out.", param="precision")
        return AS_STORED
    if body.format == "gguf" and kind == "reward":
        raise InvalidRequest(
            "A reward model has a score head, which GGUF's readers do not know: export it as merged or adapter.",
            param="format",
        )
    precision = body.precision or _DEFAULTS[body.format]
    if precision not in _PRECISIONS[body.format]:
        raise InvalidRequest(
            f"{precision} is for gguf alone: choose {', '.join(_PRECISIONS[body.format])}.", param="precision"
        )
    return precision


def _make_filename(name: str, kind: str, precision: str) -> str:
    stem = name.replace(":", "-")
    if kind == "adapter":
        return f"{stem}-adapter.zip"
    return f"{stem}-{precision}.{'gguf' if kind == 'gguf' else 'zip'}"
