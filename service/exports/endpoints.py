"""Routes of exports: models in other formats, made by workers and downloaded."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from service.exports import service
from service.exports.errors import ExportNotFound, ExportNotReady, ModelNotReady
from service.exports.schemas import ExportCreate, ExportDeleted, ExportObject
from service.files.downloads import CONDITIONS, answer_download, download_responses
from service.jobs.errors import DownloadBlocked
from service.keys.auth import ContextDep, IdempotencyDep, PrincipalDep, ReadSession, WriteSession
from service.kit.declared import declare_errors
from service.kit.pagination import BoundedListPage
from service.kit.routes import CheckedRoute
from service.models.errors import ModelNotFound

router = APIRouter(prefix="/v1/models/{model}/exports", tags=["Models"], route_class=CheckedRoute)
_SAMPLE = "ft:smollm2-135m-instruct:burnish:desk:abc12345"
_BLOCKED = DownloadBlocked(_SAMPLE)
_NO_MODEL = ModelNotFound("gpt-9", ["smollm2-135m-instruct"])
_UNKNOWN = declare_errors(_NO_MODEL, ExportNotFound("export_abc123"))


@router.post("", responses=declare_errors(_NO_MODEL, ModelNotReady(_SAMPLE, "ftjob-abc123", "running"), _BLOCKED))
def create_export(
    model: str,
    body: ExportCreate,
    session: WriteSession,
    context: ContextDep,
    principal: PrincipalDep,
    idempotency: IdempotencyDep,
) -> ExportObject:
    """Have a fine-tuned model, or a checkpoint, made into an adapter archive, merged weights or a GGUF file.

    The answer comes at once; a worker makes the export. The same model, format and precision gives the same export.
    """

    def make_export() -> ExportObject:
        return ExportObject.from_row(service.request_export(session, principal, context, model, body))

    return idempotency.run_once(session, body.model_dump(), ExportObject, make_export)


@router.get("", responses=declare_errors(_NO_MODEL))
def list_exports(
    model: str,
    session: ReadSession,
    context: ContextDep,
    principal: PrincipalDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> BoundedListPage[ExportObject]:
    """List a model's exports, newest first."""
    rows, has_more = service.list_export_page(session, principal, context, model, after=after, limit=limit)
    return BoundedListPage[ExportObject].from_items([ExportObject.from_row(row) for row in rows], has_more)


@router.get("/{export_id}", responses=_UNKNOWN)
def get_export(
    model: str, export_id: str, session: ReadSession, context: ContextDep, principal: PrincipalDep
) -> ExportObject:
    """Return an export: its status, and its size and hash once it is ready."""
    return ExportObject.from_row(service.find_export(session, principal, context, model, export_id))


@router.delete("/{export_id}", responses=_UNKNOWN)
def delete_export(
    model: str, export_id: str, session: WriteSession, context: ContextDep, principal: PrincipalDep
) -> ExportDeleted:
    """Delete an export, or end the making of it."""
    service.remove_export(session, principal, context, model, export_id)
    return ExportDeleted(id=export_id)


@router.get(
    "/{export_id}/content",
    response_class=StreamingResponse,
    responses={
        **_UNKNOWN,
        **declare_errors(ExportNotReady("export_abc123", "running", None), _BLOCKED),
        **download_responses({"application/octet-stream": None, "application/zip": None}),
    },
    openapi_extra=CONDITIONS,
)
def download_export(
    model: str, export_id: str, request: Request, session: ReadSession, context: ContextDep, principal: PrincipalDep
) -> Response:
    """Download a ready export: a zip with `manifest.json`, or the GGUF file."""
    return answer_download(context, request, service.find_content(session, principal, context, model, export_id))
