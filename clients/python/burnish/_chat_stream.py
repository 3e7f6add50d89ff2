"""A streamed answer: its chunks as they come. An interrupted one is an error, because it cannot be resumed."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, ExitStack
from typing import Any, cast

import httpx
from pydantic import ValidationError
from typing_extensions import Self

from burnish import errors
from burnish._request import Request
from burnish._sse import Decoder
from burnish._transport import AsyncTransport, Transport
from burnish.chat_schemas import ChatCompletionChunk

_DONE = "[DONE]"


class _ChunkReader:
    """Turns the bytes of one answer into chunks."""

    def __init__(self, response: httpx.Response, base_url: str) -> None:
        self.done = False
        self._response = response
        self._base_url = base_url
        self._decoder = Decoder()

    def read_chunks(self, data: bytes) -> Generator[ChatCompletionChunk, None, None]:
        """Yield the chunks in `data`. Raises APIError if the answer was cut off, APIResponseError for others."""
        for frame in self._decoder.feed(data):
            if frame.data == _DONE:
                self.done = True
                return
            yield self._parse_chunk(frame.data)

    def make_broken_stream_error(self, error: httpx.RequestError | None) -> errors.APIConnectionError:
        """Return the error of an answer that ended before its end."""
        return errors.from_exception(
            error or httpx.RemoteProtocolError("the answer ended before it was complete"), self._base_url
        )

    def _parse_chunk(self, data: str) -> ChatCompletionChunk:
        try:
            return ChatCompletionChunk.model_validate_json(data)
        except ValidationError as invalid:
            message = _find_error_message(data)
            if message is not None:
                error = errors.APIError(message)
                error.request_id = self._response.headers.get("x-request-id")
                raise error from None
            where = self._response.request.url.copy_with(query=None)
            raise errors.APIResponseError(
                f"{where} streamed something unexpected: {invalid.errors()[0]['msg']}.", response=self._response
            ) from None


def _find_error_message(data: str) -> str | None:
    """Return the message of an error that came after the answer had begun."""
    try:
        body: Any = json.loads(data)
    except (ValueError, RecursionError):
        return None
    error = cast("dict[str, Any]", body).get("error") if isinstance(body, dict) else None
    message = cast("dict[str, Any]", error).get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else None


class ChatStream:
    """Iterate over it for the chunks; a context manager, for whoever may stop early."""

    def __init__(self, client: Transport, request: Request[httpx.Response]) -> None:
        self._stack = ExitStack()
        self._chunks = self._iter_chunks(
            self._stack.enter_context(client.open_response(client.call(request))), client.base_url
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ChatCompletionChunk:
        return next(self._chunks)

    def close(self) -> None:
        """Close the connection, at which the server stops answering."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _iter_chunks(self, response: httpx.Response, base_url: str) -> Generator[ChatCompletionChunk, None, None]:
        reader = _ChunkReader(response, base_url)
        error = None
        with self._stack:
            try:
                for data in response.iter_bytes():
                    yield from reader.read_chunks(data)
                    if reader.done:
                        return
            except httpx.RequestError as request_error:
                error = request_error
        raise reader.make_broken_stream_error(error)


class AsyncChatStream:
    """Like `ChatStream`, by `async for`."""

    def __init__(self, client: AsyncTransport, response: httpx.Response, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._chunks = self._iter_chunks(response, client.base_url)

    @classmethod
    async def open(cls, client: AsyncTransport, request: Request[httpx.Response]) -> Self:
        """Send the request. Raises APIError."""
        stack = AsyncExitStack()
        return cls(client, await stack.enter_async_context(client.open_response(client.call(request))), stack)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        return await self._chunks.__anext__()

    async def close(self) -> None:
        """Close the connection, at which the server stops answering."""
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _iter_chunks(self, response: httpx.Response, base_url: str) -> AsyncGenerator[ChatCompletionChunk, None]:
        reader = _ChunkReader(response, base_url)
        error = None
        async with self._stack:
            try:
                async for data in response.aiter_bytes():
                    for chunk in reader.read_chunks(data):
                        yield chunk
                    if reader.done:
                        return
            except httpx.RequestError as request_error:
                error = request_error
        raise reader.make_broken_stream_error(error)
