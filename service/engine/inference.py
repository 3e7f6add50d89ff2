"""An OpenAI-compatible inference server as the one who answers, with vLLM's calls for loading LoRA adapters.

vLLM needs `--enable-lora`, `--served-model-name` with the catalog's id of the base, and
`VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`; it reads adapters from the folder that both share.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

import httpx
from pydantic import ValidationError

from service.chat.errors import AnswerFailed, AnswerTooLong, ChatUnavailable, EngineBusy
from service.chat.protocol import EngineQuestion
from service.chat.schemas import WITHOUT_EFFECT, Chunk
from service.engine.turns import EngineTurns
from service.engine.weights import EngineWeights
from service.kit.errors import InvalidRequest
from service.kit.response_lines import stream_lines
from service.kit.settings import Settings
from trainer.contract.chat import AdapterRef

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_LOAD_SECONDS = 120.0


class _UnknownModel(Exception):
    """The server does not know the model, or has forgotten the adapter."""


class InferenceServer:
    """A `Backend` that passes questions on to an inference server, such as vLLM."""

    def __init__(
        self, settings: Settings, weights: EngineWeights, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        assert settings.inference_url is not None
        key = settings.inference_key
        self._most_tokens = settings.engine_max_tokens
        self._answer_seconds = settings.engine_answer_seconds
        self._fetching = EngineTurns(settings)
        self._turns = EngineTurns(
            settings, settings.inference_conversations, per_project=settings.inference_conversations_per_project
        )
        self._weights = weights
        self._loaded: set[str] = set()
        self._loading = asyncio.Lock()
        self._client = httpx.AsyncClient(
            base_url=settings.inference_url.rstrip("/"),
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            # No read timeout: before the first token of a long prompt a server sends nothing; `limit_answer_time`
            # bounds the whole.
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            transport=transport,
            # A proxy of the environment would see prompts and the server's key.
            trust_env=False,
        )

    async def stream_answer(self, question: EngineQuestion) -> AsyncGenerator[Chunk]:
        """Yield the server's chunks under the caller's name of the model.

        Raises InvalidRequest, EngineBusy, ChatUnavailable, AnswerFailed or AnswerTooLong.
        """
        project = question.asking_project
        async with self._fetching.hold_turn(project):
            adapter = await asyncio.to_thread(self._weights.fetch_adapter, question.source)
        async with self._turns.hold_turn(project), aclosing(self._answer_with_adapter(question, adapter)) as chunks:
            async for chunk in limit_answer_time(chunks, self._answer_seconds):
                yield chunk

    def count_waiting(self) -> int:
        """Return how many conversations wait for a place on the server."""
        return self._turns.count_waiting()

    async def run_upkeep(self) -> None:
        """Nothing to do: the server keeps its own memory."""

    async def stop(self) -> None:
        await self._client.aclose()

    async def _answer_with_adapter(self, question: EngineQuestion, adapter: AdapterRef | None) -> AsyncGenerator[Chunk]:
        model_name = question.source.base if adapter is None else adapter.name
        # A server that restarted has forgotten its adapters and answers 404: it is loaded again, once.
        for last_try in (False, True):
            if adapter is not None:
                await self._load_adapter(adapter, again=last_try)
            try:
                async with aclosing(self._stream_server(question, model_name)) as chunks:
                    async for chunk in chunks:
                        # The server knows the adapter by an internal name that callers must not depend on.
                        yield chunk.model_copy(update={"model": question.request.model})
                return
            except _UnknownModel as error:
                if last_try or adapter is None:
                    raise ChatUnavailable(
                        f"The inference server behind this service does not serve {question.source.base}.", retry=False
                    ) from error
            except httpx.HTTPError as error:
                raise ChatUnavailable(
                    "The inference server behind this service does not answer. Try again in a few seconds."
                ) from error

    async def _load_adapter(self, adapter: AdapterRef, *, again: bool) -> None:
        # Two questions for the same new adapter would otherwise load it twice.
        async with self._loading:
            if adapter.name in self._loaded and not again:
                return
            body = {"lora_name": adapter.name, "lora_path": str(adapter.path)}
            try:
                answer = await self._client.post("/load_lora_adapter", json=body, timeout=_LOAD_SECONDS)
            except httpx.HTTPError as error:
                raise ChatUnavailable("The inference server does not load the adapter: it does not answer.") from error
            # A server that was asked by another engine has it already, and says so with 400.
            if answer.is_error and "already" not in answer.text:
                log.error("The inference server answers %d to an adapter: %s", answer.status_code, answer.text[:500])
                raise ChatUnavailable(
                    f"The inference server refused the adapter with status {answer.status_code}; the engine's log "
                    "has its answer.",
                    retry=answer.is_server_error,
                )
            self._loaded.add(adapter.name)

    async def _stream_server(self, question: EngineQuestion, model_name: str) -> AsyncGenerator[Chunk]:
        async with self._client.stream(
            "POST", "/chat/completions", json=self._make_request_body(question, model_name)
        ) as response:
            if response.is_error:
                raise _translate_refusal(response.status_code, await response.aread())
            async for line in stream_lines(response):
                data = line.removeprefix("data:").strip()
                if line.startswith("data:") and data != "[DONE]":
                    yield _parse_chunk(data)

    def _make_request_body(self, question: EngineQuestion, model_name: str) -> dict[str, Any]:
        body = question.request.model_dump(mode="json", exclude_none=True, exclude=set(WITHOUT_EFFECT))
        limit = question.request.most_tokens or self._most_tokens
        # One limit only, under the name that older servers have as well.
        body.pop("max_completion_tokens", None)
        return body | {
            "model": model_name,
            "max_tokens": limit,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


async def limit_answer_time(chunks: AsyncGenerator[Chunk], seconds: float) -> AsyncGenerator[Chunk]:
    """Pass chunks on for so long. Raises AnswerTooLong: a broken answer's tokens cannot be counted."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            # Not around the whole loop: a generator's consumer must not be cancelled by it.
            async with asyncio.timeout_at(deadline):
                chunk = await anext(chunks, None)
        except TimeoutError as error:
            raise AnswerTooLong(
                f"The answer took longer than the {seconds:g} seconds that one may take "
                "(BURNISH_ENGINE_ANSWER_SECONDS). Ask for fewer tokens or a smaller n."
            ) from error
        if chunk is None:
            return
        yield chunk


def _parse_chunk(data: str) -> Chunk:
    try:
        return Chunk.model_validate_json(data)
    except ValidationError as error:
        raise AnswerFailed(f"The inference server cut the answer off: {_error_message(data.encode())}") from error


def _translate_refusal(status: int, body: bytes) -> Exception:
    message = _error_message(body)
    if status == HTTPStatus.NOT_FOUND:
        return _UnknownModel(message)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return EngineBusy("The inference server has too much to do. Try again in a few seconds.")
    # Not passed on as 401: the caller's key is good, the operator's for the server is not.
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return ChatUnavailable("The inference server refuses this service's key (BURNISH_INFERENCE_KEY).", retry=False)
    if 400 <= status < 500:
        return InvalidRequest(f"The inference server refuses the request: {message}")
    return AnswerFailed(f"The inference server failed with status {status}: {message}")


def _error_message(body: bytes) -> str:
    """Return an error's sentence: OpenAI's form, the older form of vLLM, or the beginning of whatever it is."""
    try:
        answer: Any = json.loads(body)
        inner = answer.get("error", answer)
        return str(inner["message"])[:1000]
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return body.decode("utf-8", "replace")[:200] or "no reason given"
