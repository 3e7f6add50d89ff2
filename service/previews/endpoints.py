"""The route of previews."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from anyio import CancelScope, to_thread
from fastapi import APIRouter, Query

from service.files.errors import FileNotFound
from service.jobs.errors import ParentFailed
from service.jobs.schemas import JobCreate
from service.keys.auth import ContextDep, PrincipalDep
from service.kit.declared import declare_errors
from service.kit.routes import CheckedRoute
from service.models.errors import ModelNotFound
from service.previews import service
from service.previews.errors import NoWorker, PreviewTimeout, StartNotReady, TooManyPreviews
from service.previews.schemas import PreviewObject

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["Fine-tuning"], route_class=CheckedRoute)


@router.post(
    "/preview",
    responses=declare_errors(
        FileNotFound("file-abc123", param="training_file"),
        ModelNotFound("gpt-9", ["smollm2-135m-instruct"]),
        ParentFailed("ftjob-def456", "failed", param="model"),
        StartNotReady("ftjob-def456"),
        TooManyPreviews(4),
        NoWorker(),
    ),
)
async def preview_job(
    body: JobCreate,
    context: ContextDep,
    principal: PrincipalDep,
    rows: Annotated[int, Query(ge=0, le=50, description="How many training rows to show as tokens.")] = 3,
    wait: Annotated[
        float | None,
        Query(
            ge=0, le=600, description="Seconds to wait for the answer; BURNISH_PREVIEW_SECONDS at most, and without it."
        ),
    ] = None,
) -> PreviewObject:
    """Tell what a job with this body would come to, and create nothing: rows, tokens, masks, time, memory, queue.

    A worker counts with the training's own code; that takes some seconds, and longer for the first use of a base. What
    is not there in time goes on: the same request, sent again, waits for the same answer. A job that would fail is
    refused here as its creation would be, or with the sentence that it would end with.
    """
    longest = context.settings.preview_seconds
    seconds = longest if wait is None else min(wait, longest)
    deadline = time.monotonic() + seconds
    preview_id = await to_thread.run_sync(lambda: service.request_preview(context, principal, body, rows=rows))
    is_left = False
    try:
        while (outcome := await to_thread.run_sync(service.read_preview, context, preview_id)) is None:
            if time.monotonic() > deadline:
                note = await to_thread.run_sync(lambda: service.leave_preview(context, preview_id, body, rows=rows))
                is_left = True
                raise PreviewTimeout(seconds, note, polls=wait is not None)
            await asyncio.sleep(context.settings.poll_seconds)
        return outcome
    finally:
        if not is_left:
            with CancelScope(shield=True):  # also if the caller has disconnected
                await to_thread.run_sync(service.forget_preview, context, preview_id)
