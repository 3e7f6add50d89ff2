"""Routes of fine-tuning jobs."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.orm import Session

from service.context import Context
from service.files.downloads import CONDITIONS, Attachment, answer_download, download_responses
from service.files.errors import FileNotFound
from service.files.service import storage_errors
from service.jobs import repository, results_repository, service
from service.jobs.errors import (
    ArtifactNotReady,
    DownloadBlocked,
    JobHasEnded,
    JobInUse,
    JobNotFound,
    JobNotPaused,
    JobRunsStill,
    OtherResult,
    ParentFailed,
)
from service.jobs.examples import CREATIONS, METADATA_PARAMETER, REPORT, SAMPLE_JOB, STREAM
from service.jobs.queueing import explain_jobs
from service.jobs.schemas import MAX_METADATA, CheckpointObject, JobCreate, JobDeleted, JobEventObject, JobObject
from service.jobs.stream import EventStreams
from service.keys.auth import ContextDep, IdempotencyDep, PrincipalDep, ReadSession, WriteSession
from service.kit.bounded_stream import BoundedStream
from service.kit.declared import declare_errors
from service.kit.errors import InvalidRequest
from service.kit.pagination import BoundedListPage, ListPage
from service.kit.routes import CheckedRoute
from service.models.errors import ModelNotFound
from service.tables.jobs import JobArtifactRow, JobRow

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["Fine-tuning"], route_class=CheckedRoute)

_UNKNOWN = JobNotFound(SAMPLE_JOB)
_NO_MODEL = ModelNotFound("gpt-9", ["smollm2-135m-instruct"])
_FAILED = ParentFailed("ftjob-def456", "failed", param="model")
_BLOCKED = DownloadBlocked("ft:tiny:burnish::abc12345")
_ZIP = {"application/zip": None}


async def get_answer_stack() -> AsyncGenerator[ExitStack]:
    """Open a stack that is unwound once the answer has been sent to its end, or its reader has gone."""
    with ExitStack() as stack:
        yield stack


def _not_ready(result_kind: str) -> ArtifactNotReady:
    return ArtifactNotReady(SAMPLE_JOB, result_kind, "running")


@router.post("", responses=declare_errors(FileNotFound("file-abc123", param="training_file"), _NO_MODEL, _FAILED))
def create_job(
    body: Annotated[JobCreate, Body(openapi_examples=CREATIONS)],
    session: WriteSession,
    context: ContextDep,
    principal: PrincipalDep,
    idempotency: IdempotencyDep,
) -> JobObject:
    """Create a job. Its files are checked next, then it waits for a worker."""

    def make_job() -> JobObject:
        return _show_job(session, context, service.add_job(session, principal, context, body))

    return idempotency.run_once(session, body.model_dump(), JobObject, make_job)


@router.get("", openapi_extra=METADATA_PARAMETER)
def list_jobs(
    request: Request,
    session: ReadSession,
    context: ContextDep,
    principal: PrincipalDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> ListPage[JobObject]:
    """List jobs, newest first; `metadata[key]=value` narrows them."""
    rows, has_more = repository.fetch_job_page(
        session, principal.project_id, metadata=_metadata_filter(request), after=after, limit=limit
    )
    waits = explain_jobs(session, context.settings, rows)
    data = [JobObject.from_row(row, context.settings.organization, waits[row.id]) for row in rows]
    return ListPage(data=data, has_more=has_more)


@router.get("/{job_id}", responses=declare_errors(_UNKNOWN))
def get_job(job_id: str, session: ReadSession, context: ContextDep, principal: PrincipalDep) -> JobObject:
    """Return a job with its state, progress and errors."""
    return _show_job(session, context, service.find_job(session, principal, job_id))


@router.delete(
    "/{job_id}",
    responses=declare_errors(_UNKNOWN, JobRunsStill(SAMPLE_JOB, "running"), JobInUse(SAMPLE_JOB, ["ftjob-def456"])),
)
def delete_job(job_id: str, session: WriteSession, context: ContextDep, principal: PrincipalDep) -> JobDeleted:
    """Delete an ended job with everything it owns: events, checkpoints, results, its model."""
    service.remove_job(session, principal, context, job_id)
    return JobDeleted(id=job_id)


@router.post("/{job_id}/cancel", responses=declare_errors(_UNKNOWN, JobHasEnded(SAMPLE_JOB, "succeeded", "cancelled")))
def cancel_job(job_id: str, session: WriteSession, context: ContextDep, principal: PrincipalDep) -> JobObject:
    """Cancel a job at once; its trainer is stopped."""
    return _show_job(session, context, service.cancel_own_job(session, principal, job_id))


@router.post("/{job_id}/pause", responses=declare_errors(_UNKNOWN, JobHasEnded(SAMPLE_JOB, "succeeded", "paused")))
def pause_job(job_id: str, session: WriteSession, context: ContextDep, principal: PrincipalDep) -> JobObject:
    """Pause a job. A running one keeps a checkpoint first; then its `phase` is `paused` and its worker is free."""
    return _show_job(session, context, service.pause_own_job(session, principal, job_id))


@router.post(
    "/{job_id}/resume",
    responses=declare_errors(
        _UNKNOWN, JobHasEnded(SAMPLE_JOB, "failed", "resumed"), JobNotPaused(SAMPLE_JOB, "running")
    ),
)
def resume_job(job_id: str, session: WriteSession, context: ContextDep, principal: PrincipalDep) -> JobObject:
    """Resume a paused job from the step of its last checkpoint."""
    return _show_job(session, context, service.resume_own_job(session, principal, job_id))


@router.get(
    "/{job_id}/events",
    response_model=ListPage[JobEventObject],
    responses={200: {"content": {"text/event-stream": STREAM}}, **declare_errors(_UNKNOWN)},
)
def list_events(
    job_id: str,
    request: Request,
    open_until_sent: Annotated[ExitStack, Depends(get_answer_stack)],
    session: ReadSession,
    context: ContextDep,
    principal: PrincipalDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    stream: bool = False,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str | None, Header()] = None,
) -> ListPage[JobEventObject] | Response:
    """List a job's events, newest first; or follow them, oldest first, as server-sent events.

    A stream (`Accept: text/event-stream` or `stream=true`) starts after `Last-Event-ID` and ends, when the job
    has, with an event `done` that carries the job. It also ends once its key may not read any more.
    """
    streams: EventStreams = request.app.state.event_streams
    follow = stream or "text/event-stream" in accept.lower()
    if follow:  # before anything is read: a stream too many costs as little as can be
        open_until_sent.enter_context(streams.places.hold_place(principal.project_id))
    job = service.find_job(session, principal, job_id)
    if follow:
        position = 0
        start_after = last_event_id or after
        if start_after is not None:
            after_position = repository.event_position(session, job.id, start_after)
            if after_position is None:
                source = "Last-Event-ID" if last_event_id else "after"
                raise InvalidRequest(f"Job {job_id} has no event '{start_after[:64]}'.", param=source)
            position = after_position
        return BoundedStream(
            streams.follow_job(job.id, position, principal),
            media_type="text/event-stream",
            stall_seconds=context.settings.stream_stall_seconds,
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
    rows, has_more = repository.event_page(session, job.id, after=after, limit=limit, order="desc")
    return ListPage(data=[JobEventObject.from_row(row) for row in rows], has_more=has_more)


@router.get("/{job_id}/checkpoints", responses=declare_errors(_UNKNOWN))
def list_checkpoints(
    job_id: str,
    session: ReadSession,
    principal: PrincipalDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> BoundedListPage[CheckpointObject]:
    """List a job's checkpoints, newest first."""
    job = service.find_job(session, principal, job_id)
    rows, has_more = results_repository.checkpoint_page(session, job.id, after=after, limit=limit)
    data = [CheckpointObject.from_row(row, job.model_name) for row in rows]
    return BoundedListPage[CheckpointObject].from_items(data, has_more)


@router.get(
    "/{job_id}/adapter",
    response_class=StreamingResponse,
    responses={
        **download_responses(_ZIP),
        **declare_errors(_UNKNOWN, _not_ready("adapter"), OtherResult(SAMPLE_JOB, "adapter", "model"), _BLOCKED),
    },
    openapi_extra=CONDITIONS,
)
def download_adapter(
    job_id: str, request: Request, session: ReadSession, context: ContextDep, principal: PrincipalDep
) -> Response:
    """Download the adapter as a zip: PEFT's files, the tokenizer, a model card, `manifest.json` with hashes."""
    return _download_artifact(context, request, service.require_artifact(session, principal, job_id, "adapter"))


@router.get(
    "/{job_id}/model",
    response_class=StreamingResponse,
    responses={
        **download_responses(_ZIP),
        **declare_errors(_UNKNOWN, _not_ready("model"), OtherResult(SAMPLE_JOB, "model", "adapter"), _BLOCKED),
    },
    openapi_extra=CONDITIONS,
)
def download_model(
    job_id: str, request: Request, session: ReadSession, context: ContextDep, principal: PrincipalDep
) -> Response:
    """Download the whole model of a job that trained all weights, as a zip: transformers' files and hashes."""
    return _download_artifact(context, request, service.require_artifact(session, principal, job_id, "model"))


def _download_artifact(context: Context, request: Request, artifact: JobArtifactRow) -> Response:
    attachment = Attachment(artifact.blob_key, artifact.filename, artifact.media_type, artifact.bytes, artifact.sha256)
    return answer_download(context, request, attachment)


@router.get(
    "/{job_id}/report",
    response_class=Response,
    responses={200: REPORT, **declare_errors(_UNKNOWN, _not_ready("report"))},
)
def get_report(
    job_id: str,
    session: ReadSession,
    context: ContextDep,
    principal: PrincipalDep,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Return the eval report: one self-contained page for `Accept: text/html`, else JSON."""
    name = "report.html" if _prefers_html(accept) else "report.json"
    artifact = service.require_artifact(session, principal, job_id, name)
    with storage_errors():
        body = b"".join(context.storage.read(artifact.blob_key))
    # The page is made of a project's data: it draws, and does nothing else.
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox"
    )
    headers = {"Vary": "Accept", "ETag": f'"{artifact.sha256}"', "Content-Security-Policy": policy}
    return Response(body, media_type=artifact.media_type, headers=headers)


def _prefers_html(accept: str) -> bool:
    html, json_ = accept.find("text/html"), accept.find("application/json")
    return html >= 0 and (json_ < 0 or html < json_)


def _show_job(session: Session, context: Context, job: JobRow) -> JobObject:
    queue = explain_jobs(session, context.settings, [job])[job.id]
    return JobObject.from_row(job, context.settings.organization, queue)


def _metadata_filter(request: Request) -> dict[str, str] | None:
    """Return the pairs that are asked for; None where jobs without metadata are. Raises InvalidRequest."""
    pairs: dict[str, str] = {}
    bare = False
    for name, value in request.query_params.multi_items():
        match = re.fullmatch(r"metadata\[(.{1,64})\]", name, re.DOTALL)
        if match and len(value) <= 512:
            if pairs.setdefault(match[1], value) != value:
                raise InvalidRequest(f"'{name}' is given twice; a job has one value for a key.", param="metadata")
            if len(pairs) > MAX_METADATA:
                raise InvalidRequest(
                    f"The list is narrowed by more than {MAX_METADATA} pairs of metadata, the most that a job has.",
                    param="metadata",
                )
        elif name == "metadata" and value == "null":
            bare = True
        elif name.startswith("metadata"):
            raise InvalidRequest(
                f"'{name[:80]}={value[:80]}' is not a filter; write metadata[key]=value, the key with 1 to 64 "
                "characters, the value with 512 at most; or metadata=null for jobs without any.",
                param="metadata",
            )
    if bare and pairs:
        raise InvalidRequest("metadata=null and metadata[key]=value exclude each other.", param="metadata")
    return None if bare else pairs
