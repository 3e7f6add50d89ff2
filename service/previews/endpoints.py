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
from service.previews.errors import NoWorker, StartNotReady, TooManyPreviews
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
) -> PreviewObject:
    """Tell what a job with this body would come to, and create nothing: rows, tokens, masks, time, memory, queue.

    A worker counts with the training's own code; that takes some seconds. A job that would fail is refused here as
    its creation would be, or with the sentence that it would end with.
    """
    deadline = time.monotonic() + context.settings.preview_seconds
    preview_id = await to_thread.run_sync(lambda: service.request_preview(context, principal, body, rows=rows))
    try:
        while (outcome := await to_thread.run_sync(service.read_preview, context, preview_id)) is None:
            if time.monotonic() > deadline:
                raise await to_thread.run_sync(service.give_up, context, preview_id)
            await asyncio.sleep(context.settings.poll_seconds)
        return outcome
    finally:
        with CancelScope(shield=True):  # also if the caller has disconnected
            await to_thread.run_sync(service.forget_preview, context, preview_id)
