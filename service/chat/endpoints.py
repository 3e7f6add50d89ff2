"""The route of chat completions."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool

from service.chat import gather
from service.chat.engine import Engine
from service.chat.errors import AnswerFailed, ChatUnavailable, EngineBusy, ModelNotReady
from service.chat.metering import TokenMeter
from service.chat.protocol import EngineQuestion, ModelSource
from service.chat.schemas import ChatCompletion, ChatCompletionRequest
from service.chat.service import open_engine, require_bounded, resolve_model
from service.chat.waiting import AwaitedStream
from service.keys.auth import ContextDep, PrincipalDep
from service.kit.attended import run_while_connected
from service.kit.bounded_stream import BoundedStream
from service.kit.declared import Responses, declare_errors
from service.kit.errors import ServiceError
from service.kit.open_places import OpenPlaces
from service.kit.routes import CheckedRoute
from service.limits.rates import RateBookDep
from service.models.errors import ModelNotFound

router = APIRouter(prefix="/v1/chat", tags=["Chat"], route_class=CheckedRoute)

_UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_CHUNK = (
    '{"id":"chatcmpl-abc123","object":"chat.completion.chunk","created":1764000000,"model":"smollm2-135m-instruct",'
    '"choices":[{"index":0,"delta":{"content":"你好"},"finish_reason":null}]}'
)
_STREAM: Responses = {
    200: {
        "description": "The completion; with `stream: true`, its chunks as server-sent events that end with `[DONE]`.",
        "content": {
            "text/event-stream": {
                "schema": {
                    "description": "Each event of the stream.",
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "string", "description": "A chunk as JSON; at the end `[DONE]`."}},
                },
                "example": {"data": _CHUNK},
            }
        },
    },
    **declare_errors(
        ModelNotFound("gpt-9", ["smollm2-135m-instruct"]),
        ModelNotReady("The job ftjob-abc123 is running: its model can be asked once it has succeeded.", param="model"),
        EngineBusy("32 conversations wait already. Try again in a few seconds."),
        AnswerFailed("The answer was cut off before its end. Send the request again."),
        ChatUnavailable("The engine for chat does not answer at the moment. Try again in a few seconds."),
    ),
}
_STREAM[429]["headers"] = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}, "example": "2"}
}


def get_engine(context: ContextDep) -> Engine:
    """Return who answers. Raises ChatUnavailable."""
    return open_engine(context)


async def hold_chat(request: Request, principal: PrincipalDep) -> AsyncGenerator[None]:
    """Count an open chat until its answer has been sent. Raises TooManyOpen."""
    places: OpenPlaces = request.app.state.open_chats
    with places.hold_place(principal.project_id):
        yield


@router.post("/completions", response_model=ChatCompletion, responses=_STREAM, dependencies=[Depends(hold_chat)])
async def create_chat_completion(
    body: ChatCompletionRequest,
    request: Request,
    context: ContextDep,
    principal: PrincipalDep,
    engine: Annotated[Engine, Depends(get_engine)],
    book: RateBookDep,
) -> Any:
    """Answer a conversation with a base, a fine-tuned model, a checkpoint, or the result of a job."""
    require_bounded(body, context.settings)

    def find_source() -> ModelSource:
        with context.db.read() as session:
            return resolve_model(session, principal, context, body.model)

    question = EngineQuestion(
        source=await run_in_threadpool(find_source), request=body, project_id=principal.project_id
    )
    meter = TokenMeter(context, principal, book)
    reserved_tokens = await meter.reserve_tokens(body)
    chunks = meter.meter_chunks(engine.stream_answer(question), reserved_tokens)
    if body.stream:
        stream = AwaitedStream(chunks)
        await stream.wait_for_refusal(request)
        usage = body.stream_options is not None and body.stream_options.include_usage
        return BoundedStream(
            _write_events(stream, usage=usage),
            media_type="text/event-stream",
            stall_seconds=context.settings.stream_stall_seconds,
            headers=_UNBUFFERED,
            stop_work=stream.stop_work,
        )
    return await run_while_connected(request, gather.join_chunks(chunks))


async def _write_events(stream: AwaitedStream, *, usage: bool) -> AsyncGenerator[bytes]:
    """Write comments, then chunks; an error becomes an event, as the status has been sent."""
    try:
        async with stream, aclosing(stream.write_comments()) as comments, aclosing(stream.iterate_chunks()) as chunks:
            async for comment in comments:
                yield comment
            async for chunk in chunks:
                if chunk.choices or usage:
                    yield gather.write_event(chunk if usage else chunk.model_copy(update={"usage": None}))
    except ServiceError as error:
        error_fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        yield f"data: {json.dumps({'error': error_fields}, ensure_ascii=False)}\n\n".encode()
        return
    yield gather.DONE
