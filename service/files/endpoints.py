"""Routes of files: OpenAI's upload, list, content and deletion."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from service.files import repository, service
from service.files.downloads import CONDITIONS, Attachment, answer_download, download_responses
from service.files.errors import SAMPLE_INVALID, SAMPLE_TOO_LARGE, FileNotFound
from service.files.intake import UPLOAD_PURPOSES
from service.files.schemas import FileDeleted, FileObject
from service.files.turns import SAMPLE_TOO_MANY, UploadTurnsDep
from service.keys.auth import ContextDep, IdempotencyDep, PrincipalDep, ReadSession, WriteSession
from service.kit.declared import declare_errors
from service.kit.pagination import BoundedListPage, Order
from service.kit.routes import CheckedRoute

router = APIRouter(prefix="/v1/files", tags=["Files"], route_class=CheckedRoute)

_CONTENT = {
    "application/jsonl": '{"messages":[{"role":"user","content":"Hello"},{"role":"assistant","content":"你好"}]}\n',
    "text/csv": "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,0.52,0.81,,\n",
}
_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "examples": [_CONTENT["application/jsonl"]]},
                        "purpose": {"type": "string", "enum": list(UPLOAD_PURPOSES)},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2592000},
                    },
                }
            }
        },
    }
}
_NO_FILE = declare_errors(FileNotFound("file-abc123"))


@router.post(
    "", openapi_extra=_UPLOAD_BODY, responses=declare_errors(SAMPLE_INVALID, SAMPLE_TOO_LARGE, SAMPLE_TOO_MANY)
)
async def upload_file(
    request: Request,
    context: ContextDep,
    principal: PrincipalDep,
    idempotency: IdempotencyDep,
    turns: UploadTurnsDep,
) -> FileObject:
    """Store a dataset: JSON Lines or text, also in gzip or zstd, or Parquet.

    It is read as a stream and checked on the way; a file with problems is not stored. What its bytes are packed in is
    seen by themselves, whatever the name. The rows of Parquet are checked with the first job that uses them.
    """
    content_type = request.headers.get("content-type", "")
    with service.FileUpload(context, idempotency, principal, content_type) as upload:
        async with AsyncExitStack() as turn:

            async def check_in_turn() -> None:
                await turn.enter_async_context(turns.hold_turn(principal.project_id))
                await to_thread.run_sync(upload.start_check)

            async for chunk in request.stream():
                await to_thread.run_sync(upload.feed, chunk)
                if upload.needs_process():
                    await check_in_turn()
            if await to_thread.run_sync(lambda: upload.needs_process(at_end=True)):
                await check_in_turn()
            return await to_thread.run_sync(upload.complete)


@router.get("")
def list_files(
    session: ReadSession,
    principal: PrincipalDep,
    purpose: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10000)] = 10000,
    order: Order = "desc",
) -> BoundedListPage[FileObject]:
    """List files, newest first."""
    rows, has_more = repository.fetch_file_page(
        session, principal.project_id, purpose=purpose, after=after, limit=limit, order=order
    )
    data = [FileObject.from_row(row) for row in rows]
    return BoundedListPage[FileObject].from_items(data, has_more)


@router.get("/{file_id}", responses=_NO_FILE)
def get_file(file_id: str, session: ReadSession, principal: PrincipalDep) -> FileObject:
    """Return a file's facts."""
    return FileObject.from_row(service.find_file(session, principal, file_id))


@router.get(
    "/{file_id}/content",
    response_class=StreamingResponse,
    responses={**_NO_FILE, **download_responses(_CONTENT)},
    openapi_extra=CONDITIONS,
)
def get_file_content(
    file_id: str, request: Request, session: ReadSession, context: ContextDep, principal: PrincipalDep
) -> Response:
    """Return a file's bytes as they were uploaded."""
    file = service.find_file(session, principal, file_id)
    attachment = Attachment(file.blob_key, file.filename, service.media_type(file), file.bytes, file.sha256)
    return answer_download(context, request, attachment)


@router.delete("/{file_id}", responses=_NO_FILE)
def delete_file(file_id: str, session: WriteSession, principal: PrincipalDep) -> FileDeleted:
    """Delete a file, and its content unless another file has the same."""
    service.remove_file(session, service.find_file(session, principal, file_id))
    return FileDeleted(id=file_id)
