"""The embedded engine: one conversation after the other, by a program that holds one base."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from service.chat.errors import AnswerFailed, EngineBusy
from service.chat.protocol import Question, Source
from service.chat.schemas import ChatCompletionRequest, Chunk
from service.engine.speaker import Speaker
from service.engine.weights import Weights
from service.engine.writer import Writer
from service.kit.errors import InvalidRequest
from service.kit.settings import Settings
from trainer.contract.chat import Ask, Refused, Sampling

log = logging.getLogger(__name__)

_LOOKS_AN_IDLE_TIME = 4


class LocalEngine:
    """A `Backend`: questions take turns, and a bounded number waits."""

    def __init__(self, settings: Settings, weights: Weights, speaker: Speaker) -> None:
        self._settings = settings
        self._weights = weights
        self._speaker = speaker
        self._turn = asyncio.Lock()
        self._inside = 0
        self._used = False
        # One thread for the whole life: children that prepare bases die with the thread that started them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="weights")

    async def answers(self, question: Question) -> AsyncGenerator[Chunk]:
        """Yield chunks. Raises InvalidRequest, EngineBusy, AnswerFailed, or what the weights may raise."""
        check(question.request)
        if self._inside > self._settings.engine_waiting:
            raise EngineBusy(
                f"{self._settings.engine_waiting} conversations wait for the engine, as many as it takes. Try again in "
                "a few seconds."
            )
        self._inside += 1
        try:
            async with self._turn, aclosing(self._one(question)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._inside -= 1
            self._used = True

    async def tend(self) -> None:
        """Free the model's memory when nobody has asked for a while."""
        idle, quiet = self._settings.engine_idle_seconds / _LOOKS_AN_IDLE_TIME, 0
        while True:
            await asyncio.sleep(idle)
            quiet = 0 if self._used or self._inside else quiet + 1
            self._used = False
            if quiet >= _LOOKS_AN_IDLE_TIME and self._speaker.running:
                log.info("Nobody has asked for %.0f s: the model's memory is freed", self._settings.engine_idle_seconds)
                async with self._turn:
                    await self._speaker.stop()

    async def stop(self) -> None:
        """End the program."""
        await self._speaker.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _one(self, question: Question) -> AsyncGenerator[Chunk]:
        ask = await self._ask(question.source, question.request)
        writer = Writer(question.request.model, tools=ask.tools is not None)
        async with aclosing(self._speaker.ask(ask)) as events:
            async for event in events:
                if isinstance(event, Refused):
                    kind = AnswerFailed if event.fault else InvalidRequest
                    raise kind(event.message, param=event.param, code=event.code)
                for chunk in writer.chunks(event):
                    yield chunk

    async def _ask(self, source: Source, request: ChatCompletionRequest) -> Ask:
        loop = asyncio.get_running_loop()
        base, adapter = await loop.run_in_executor(self._thread, self._weights.ready, source)
        tools = None
        if request.tools and request.tool_choice != "none":
            tools = tuple(tool.model_dump(exclude_none=True) for tool in request.tools)
        return Ask(
            id=f"ask-{secrets.token_hex(8)}",
            base=base,
            adapter=adapter,
            messages=request.messages,
            tools=tools,
            sampling=sampling(request, most_tokens=self._settings.engine_max_tokens),
        )


def check(request: ChatCompletionRequest) -> None:
    """Raise InvalidRequest for what only an inference server can do."""
    kind = (request.response_format or {"type": "text"}).get("type")
    if kind != "text":
        raise InvalidRequest(
            f"response_format {str(kind)[:64]!r} needs an inference server; this service's own engine writes text.",
            param="response_format",
        )
    if request.tool_choice not in (None, "none", "auto"):
        raise InvalidRequest(
            "tool_choice can be 'auto' or 'none' here; forcing a call needs an inference server.", param="tool_choice"
        )


def sampling(request: ChatCompletionRequest, *, most_tokens: int) -> Sampling:
    """Return how to draw, with OpenAI's defaults; `most_tokens` is the limit where the request has none."""
    return Sampling(
        max_tokens=request.most_tokens or most_tokens,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        n=request.n or 1,
        stop=request.stops,
        seed=request.seed,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias={int(token): bias for token, bias in (request.logit_bias or {}).items()},
        top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
    )
