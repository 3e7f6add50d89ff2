"""The engine's HTTP: the API asks, and reads chunks line by line."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse

from service.chat.errors import AnswerFailed
from service.chat.protocol import PATH, Line, Question, Refusal, engine_token
from service.chat.schemas import Chunk
from service.engine.backend import Backend
from service.kit.errors import ServiceError

log = logging.getLogger(__name__)


def create_engine_app(hmac_key: bytes, open_backend: Callable[[], Backend]) -> FastAPI:
    """Assemble the application; the backend is opened in its event loop."""
    expected = f"Bearer {engine_token(hmac_key)}".encode()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.backend = backend = open_backend()
        tending = asyncio.create_task(backend.tend())
        yield
        tending.cancel()
        await backend.stop()

    app = FastAPI(openapi_url=None, lifespan=lifespan)

    async def answers(question: Question, authorization: Annotated[str, Header()] = "") -> StreamingResponse:
        if not hmac.compare_digest(authorization.encode(), expected):
            raise HTTPException(401)
        return StreamingResponse(_lines(app.state.backend.answers(question)), media_type="application/x-ndjson")

    app.post(PATH)(answers)
    app.get("/healthz")(_healthz)
    return app


def _healthz() -> dict[str, str]:
    return {"status": "ok"}


async def _lines(chunks: AsyncGenerator[Chunk]) -> AsyncGenerator[bytes]:
    """Write chunks; whatever goes wrong becomes the last line."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield _line(Line(chunk=chunk))
    except ServiceError as error:
        if error.status >= 500:
            log.error("%s", error.message)
        yield _line(Line(refusal=Refusal.of(error)))
    except Exception:
        log.exception("A conversation could not be answered")
        yield _line(Line(refusal=Refusal.of(AnswerFailed("The engine for chat made an error; its log has it."))))


def _line(line: Line) -> bytes:
    return line.model_dump_json().encode() + b"\n"
