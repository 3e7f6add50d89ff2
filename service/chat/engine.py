"""The client of the engine process, on a unix socket or another machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from http import HTTPStatus

import httpx

from service.chat.errors import AnswerFailed, ChatUnavailable, EngineRefused
from service.chat.protocol import PATH, EngineLine, EngineQuestion, EngineRefusal, engine_token
from service.chat.schemas import Chunk
from service.kit import tracing
from service.kit.log import REQUEST_ID
from service.kit.response_lines import stream_lines

_CONNECT_SECONDS = 5.0
_AWAY = "The engine for chat does not answer at the moment. Try again in a few seconds."
_BROKEN_OFF = "The engine for chat stopped in the middle of the answer. Ask again."


class Engine:
    """Asks the engine. One stream serves both: answers that are not streamed are joined from it."""

    def __init__(self, url: str, hmac_key: bytes) -> None:
        self._socket = url.removeprefix("unix://") if url.startswith("unix://") else None
        self._url = "http://engine" if self._socket else url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {engine_token(hmac_key)}", "Content-Type": "application/json"}

    async def stream_answer(self, question: EngineQuestion) -> AsyncGenerator[Chunk]:
        """Yield chunks, the last with the usage. Leaving the iteration ends the work.

        Raises EngineRefused, ChatUnavailable, or AnswerFailed if the engine dies on the way.
        """
        began = False
        transport = httpx.AsyncHTTPTransport(uds=self._socket)
        timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
        body = question.model_dump_json(exclude_unset=True)
        headers = self._headers | tracing.trace_headers() | {"x-request-id": REQUEST_ID.get()}
        try:
            async with (
                httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False) as client,
                client.stream("POST", self._url + PATH, content=body, headers=headers) as response,
            ):
                if response.status_code != HTTPStatus.OK:
                    raise ChatUnavailable(f"The engine for chat answers with the status {response.status_code}.")
                async for line in stream_lines(response):
                    yield _chunk_of_line(EngineLine.model_validate_json(line))
                    began = True
        except httpx.HTTPError as error:
            raise AnswerFailed(_BROKEN_OFF) if began else ChatUnavailable(_AWAY) from error


def _chunk_of_line(line: EngineLine) -> Chunk:
    if line.chunk is not None:
        return line.chunk
    refusal = line.refusal
    assert isinstance(refusal, EngineRefusal)
    raise EngineRefused(
        refusal.message,
        status=refusal.status,
        kind=refusal.type,
        retry=refusal.retry,
        param=refusal.param,
        code=refusal.code,
    )
