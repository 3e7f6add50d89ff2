"""The engine's HTTP: the API sends questions, and reads chunks line by line."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException

from service.chat.errors import AnswerFailed
from service.chat.protocol import PATH, EngineLine, EngineQuestion, EngineRefusal, engine_token
from service.chat.schemas import Chunk
from service.chat.service import require_bounded
from service.engine.backend import Backend
from service.kit import metrics, tracing
from service.kit.bounded_stream import BoundedStream
from service.kit.errors import ServiceError
from service.kit.log import REQUEST_ID
from service.kit.settings import Settings

log = logging.getLogger(__name__)


def create_engine_app(hmac_key: bytes, settings: Settings, open_backend: Callable[[], Backend]) -> FastAPI:
    """Assemble the application; the backend is opened in its event loop."""
    expected_header = f"Bearer {engine_token(hmac_key)}".encode()

    @asynccontextmanager
    async def run_backend(app: FastAPI) -> AsyncGenerator[None]:
        app.state.backend = backend = open_backend()
        tending = asyncio.create_task(backend.run_upkeep())
        yield
        tending.cancel()
        await backend.stop()

    app = FastAPI(openapi_url=None, lifespan=run_backend)

    async def answer_question(
        question: EngineQuestion,
        authorization: Annotated[str, Header()] = "",
        traceparent: Annotated[str | None, Header()] = None,
        x_request_id: Annotated[str, Header()] = "",
    ) -> BoundedStream:
        # In constant time: a plain comparison gives the token away byte by byte.
        if not hmac.compare_digest(authorization.encode(), expected_header):
            raise HTTPException(401)
        REQUEST_ID.set(x_request_id)
        lines = _write_lines(_answer_bounded(app.state.backend, question, settings), traceparent)
        return BoundedStream(lines, media_type="application/x-ndjson", stall_seconds=settings.stream_stall_seconds)

    app.post(PATH)(answer_question)
    app.get("/healthz")(_check_health)
    return app


def _check_health() -> dict[str, str]:
    return {"status": "ok"}


async def _answer_bounded(backend: Backend, question: EngineQuestion, settings: Settings) -> AsyncGenerator[Chunk]:
    require_bounded(question.request, settings)
    async with aclosing(backend.stream_answer(question)) as chunks:
        async for chunk in chunks:
            yield chunk


async def _write_lines(chunks: AsyncGenerator[Chunk], parent: str | None) -> AsyncGenerator[bytes]:
    """Write chunks; whatever goes wrong becomes the last line."""
    began, outcome = time.time(), "given_up"
    metrics.CONVERSATIONS.inc()
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield _encode_line(EngineLine(chunk=chunk))
        outcome = "answered"
    except ServiceError as error:
        outcome = "refused" if error.status < 500 else "failed"
        if error.status >= 500:
            log.error("%s", error.message)
        yield _encode_line(EngineLine(refusal=EngineRefusal.from_error(error)))
    except Exception:
        outcome = "failed"
        log.exception("A conversation could not be answered")
        yield _encode_line(
            EngineLine(
                refusal=EngineRefusal.from_error(AnswerFailed("The engine for chat made an error; its log has it."))
            )
        )
    finally:
        metrics.CONVERSATIONS.dec()
        metrics.ANSWERS.labels(outcome).inc()
        metrics.ANSWER_SECONDS.observe(time.time() - began)
        tracing.record_span("answer", began, time.time(), {"burnish.outcome": outcome}, parent=parent)


def _encode_line(line: EngineLine) -> bytes:
    return line.model_dump_json().encode() + b"\n"
