"""Routes of uploads: OpenAI's large files in parts."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request

from service.files.errors import SAMPLE_INVALID, SAMPLE_TOO_LARGE
from service.files.turns import SAMPLE_TOO_MANY, UploadTurnsDep
from service.keys.auth import ContextDep, IdempotencyDep, PrincipalDep, ReadSession, WriteSession
from service.kit.declared import declare_errors
from service.kit.routes import CheckedRoute
from service.uploads import repository, service
from service.uploads.errors import PartTooMuch, UploadNotFound, UploadNotPending
from service.uploads.schemas import PartObject, UploadComplete, UploadCreate, UploadObject, UploadWithParts

router = APIRouter(prefix="/v1/uploads", tags=["Uploads"], route_class=CheckedRoute)

_PART_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "string", "format": "binary", "examples": ['{"messages":[…']}},
                }
            }
        },
    }
}
_UNKNOWN = UploadNotFound("upload_abc123")
_ENDED = UploadNotPending("upload_abc123", "completed", "file-abc123")
_TOO_MUCH = PartTooMuch("A part may have 67108864 bytes (64 MiB): send more, smaller ones.")


@router.post("", responses=declare_errors(SAMPLE_TOO_LARGE))
def create_upload(
    body: UploadCreate,
    session: WriteSession,
    context: ContextDep,
    principal: PrincipalDep,
    idempotency: IdempotencyDep,
) -> UploadObject:
    """Announce a file that will come in parts. It must be completed within an hour."""
    return idempotency.run_once(
        session, body.model_dump(), UploadObject, lambda: service.announce_upload(session, principal, context, body)
    )


@router.get("/{upload_id}", responses=declare_errors(_UNKNOWN))
def get_upload(upload_id: str, session: ReadSession, principal: PrincipalDep) -> UploadWithParts:
    """Return an upload with the parts that have arrived: what is needed to resume it."""
    upload = UploadObject.from_row(service.find_upload(session, principal, upload_id))
    parts = [PartObject.from_row(part) for part in repository.fetch_received_parts(session, upload_id)]
    return UploadWithParts(**upload.model_dump(), parts=parts)


@router.post("/{upload_id}/parts", openapi_extra=_PART_BODY, responses=declare_errors(_TOO_MUCH, _UNKNOWN, _ENDED))
async def add_part(
    upload_id: str, request: Request, context: ContextDep, principal: PrincipalDep, idempotency: IdempotencyDep
) -> PartObject:
    """Add a part of at most 64 MiB. Parts may come in parallel and in any order."""
    upload = await to_thread.run_sync(_find_open, context, principal, upload_id, idempotency)
    with service.PartUpload(context, upload, idempotency, request.headers.get("content-type", "")) as part:
        async for chunk in request.stream():
            await to_thread.run_sync(part.feed, chunk)
        return await to_thread.run_sync(part.complete)


@router.post(
    "/{upload_id}/complete",
    responses=declare_errors(SAMPLE_INVALID, SAMPLE_TOO_LARGE, SAMPLE_TOO_MANY, _UNKNOWN, _ENDED),
)
async def complete_upload(
    upload_id: str,
    body: UploadComplete,
    context: ContextDep,
    principal: PrincipalDep,
    idempotency: IdempotencyDep,
    turns: UploadTurnsDep,
) -> UploadObject:
    """Join the named parts, in this order, into a file. It is checked as any uploaded file is."""
    async with turns.hold_turn(principal.project_id):
        return await to_thread.run_sync(service.join_upload, context, principal, idempotency, upload_id, body)


@router.post("/{upload_id}/cancel", responses=declare_errors(_UNKNOWN, _ENDED))
def cancel_upload(upload_id: str, session: WriteSession, principal: PrincipalDep) -> UploadObject:
    """Give an upload up; its parts are deleted."""
    return service.abandon_upload(session, principal, upload_id)


def _find_open(
    context: ContextDep, principal: PrincipalDep, upload_id: str, idempotency: IdempotencyDep
) -> service.UploadRow:
    """Return an upload that a part may come to: one that is pending, or that may have received the part before."""
    with context.db.read() as session:
        find = service.find_upload if idempotency.is_kept(session) else service.find_pending
        return find(session, principal, upload_id)
