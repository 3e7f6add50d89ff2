"""Routes of exports."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from service.exports import service
from service.exports.schemas import ExportCreate, ExportDeleted, ExportObject
from service.files.downloads import PARTIAL, download
from service.keys.auth import ContextDep, IdempotencyDep, PrincipalDep, ReadSession, WriteSession
from service.kit.pagination import BoundedListPage

router = APIRouter(prefix="/v1/models/{model}/exports", tags=["Models"])
_BYTES = {"schema": {"type": "string", "format": "binary"}}


@router.post("")
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

    def create() -> ExportObject:
        return ExportObject.of(service.create(session, principal, context, model, body))

    return idempotency.once(session, body.model_dump(), ExportObject, create)


@router.get("")
def list_exports(
    model: str,
    session: ReadSession,
    context: ContextDep,
    principal: PrincipalDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> BoundedListPage[ExportObject]:
    """List a model's exports, newest first."""
    rows, has_more = service.page(session, principal, context, model, after=after, limit=limit)
    return BoundedListPage[ExportObject].of([ExportObject.of(row) for row in rows], has_more)


@router.get("/{export_id}")
def get_export(
    model: str, export_id: str, session: ReadSession, context: ContextDep, principal: PrincipalDep
) -> ExportObject:
    """Return an export: its status, and its size and hash once it is ready."""
    return ExportObject.of(service.find(session, principal, context, model, export_id))


@router.delete("/{export_id}")
def delete_export(
    model: str, export_id: str, session: WriteSession, context: ContextDep, principal: PrincipalDep
) -> ExportDeleted:
    """Delete an export, or end the making of it."""
    service.delete(session, principal, context, model, export_id)
    return ExportDeleted(id=export_id)


@router.get(
    "/{export_id}/content",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": _BYTES, "application/zip": _BYTES}}, **PARTIAL},
)
def download_export(
    model: str, export_id: str, request: Request, session: ReadSession, context: ContextDep, principal: PrincipalDep
) -> Response:
    """Download a ready export: a zip with `manifest.json`, or the GGUF file."""
    found = service.find(session, principal, context, model, export_id)
    return download(context, request, service.attachment(found))
