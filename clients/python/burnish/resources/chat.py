"""`/v1/chat/completions`: talking with a base or a tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

import httpx
from pydantic import BaseModel
from typing_extensions import Unpack

from burnish._chat_stream import AsyncChatStream, ChatStream
from burnish._request import Request, parser_of, whole_response
from burnish._transport import AsyncTransport, Transport
from burnish.chat_schemas import ChatCompletion, CreateChatCompletion

_PATH = "/chat/completions"
_ANSWER_SECONDS = 600.0
"""How long the server may send nothing: it may load the model first, and without `stream` answers at the end."""


def _completion_body(arguments: CreateChatCompletion) -> dict[str, Any]:
    body = {name: value for name, value in arguments.items() if value is not None and name != "extra_body"}
    body["messages"] = [_plain_message(message) for message in arguments["messages"]]
    return body | (arguments.get("extra_body") or {})


def _plain_message(message: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    return message.model_dump(mode="json", exclude_none=True) if isinstance(message, BaseModel) else dict(message)


def _create_completion_request(arguments: CreateChatCompletion) -> Request[ChatCompletion]:
    body = _completion_body(arguments)
    return Request("POST", _PATH, parser_of(ChatCompletion), json=body, read_timeout=_ANSWER_SECONDS)


def _stream_completion_request(arguments: CreateChatCompletion) -> Request[httpx.Response]:
    body = {**_completion_body(arguments), "stream": True}
    headers = {"Accept": "text/event-stream"}
    return Request(
        "POST", _PATH, whole_response, headers=headers, json=body, streamed=True, read_timeout=_ANSWER_SECONDS
    )


class Completions:
    """`client.chat.completions`: answers of models, whole or streamed."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    @overload
    def create(
        self, *, stream: Literal[False] = False, **arguments: Unpack[CreateChatCompletion]
    ) -> ChatCompletion: ...

    @overload
    def create(self, *, stream: Literal[True], **arguments: Unpack[CreateChatCompletion]) -> ChatStream: ...

    @overload
    def create(self, *, stream: bool, **arguments: Unpack[CreateChatCompletion]) -> ChatCompletion | ChatStream: ...

    def create(self, *, stream: bool = False, **arguments: Unpack[CreateChatCompletion]) -> ChatCompletion | ChatStream:
        """Answer a conversation; the arguments are those of `burnish.chat_schemas.CreateChatCompletion`.

        With `stream`, returns an iterator over chunks. Raises APIError, NotFoundError for an unknown model, and
        RateLimitError if too many conversations wait.
        """
        if stream:
            return ChatStream(self._client, _stream_completion_request(arguments))
        return self._client.send(_create_completion_request(arguments))


class AsyncCompletions:
    """`client.chat.completions`, awaited; see `Completions`."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    @overload
    async def create(
        self, *, stream: Literal[False] = False, **arguments: Unpack[CreateChatCompletion]
    ) -> ChatCompletion: ...

    @overload
    async def create(self, *, stream: Literal[True], **arguments: Unpack[CreateChatCompletion]) -> AsyncChatStream: ...

    @overload
    async def create(
        self, *, stream: bool, **arguments: Unpack[CreateChatCompletion]
    ) -> ChatCompletion | AsyncChatStream: ...

    async def create(
        self, *, stream: bool = False, **arguments: Unpack[CreateChatCompletion]
    ) -> ChatCompletion | AsyncChatStream:
        """Answer a conversation, whole or as an asynchronous iterator over chunks."""
        if stream:
            return await AsyncChatStream.open(self._client, _stream_completion_request(arguments))
        return await self._client.send(_create_completion_request(arguments))


class Chat:
    """`client.chat`, which holds `completions`."""

    def __init__(self, client: Transport) -> None:
        self.completions = Completions(client)


class AsyncChat:
    """`client.chat`, to be awaited."""

    def __init__(self, client: AsyncTransport) -> None:
        self.completions = AsyncCompletions(client)
