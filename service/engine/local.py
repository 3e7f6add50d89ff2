"""The embedded engine: one conversation at a time, in turns by project, by a program that holds one base."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager

from service.chat.errors import AnswerFailed
from service.chat.protocol import EngineQuestion, ModelSource
from service.chat.schemas import ChatCompletionRequest, Chunk
from service.engine.speaker import Speaker
from service.engine.turns import EngineTurns
from service.engine.weights import EngineWeights
from service.engine.writer import ChunkWriter
from service.kit.errors import InvalidRequest
from service.kit.fair_turns import Turn
from service.kit.settings import Settings
from trainer.contract.chat import AnswerRefused, Ask, Sampling

log = logging.getLogger(__name__)

_LOOKS_AN_IDLE_TIME = 4
_LOOK_SECONDS = 0.1
_MOST_ASIDE = 8
"""How many conversations may have paused at once: each keeps in memory what the model has read of it."""
_BLOCKED_SECONDS = 0.05
"""A piece that is taken later than this was waited for."""
_HOUSEKEEPING = ""
"""The project under which the engine takes a turn for itself."""


class LocalEngine:
    """A `Backend`: questions take turns by project, and a bounded number waits.

    The weights are made ready before a question waits for the model, so that a download keeps no model idle.
    """

    def __init__(self, settings: Settings, weights: EngineWeights, speaker: Speaker) -> None:
        self._settings = settings
        self._weights = weights
        self._speaker = speaker
        self._fetching = EngineTurns(settings)
        self._turns = EngineTurns(settings)
        self._inside = 0
        self._aside = 0
        self._used = False
        # One thread for the whole life: children that prepare bases die with the thread that started them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="weights")

    async def stream_answer(self, question: EngineQuestion) -> AsyncGenerator[Chunk]:
        """Yield chunks. Raises InvalidRequest, EngineBusy, AnswerFailed, or what the weights may raise."""
        refuse_unsupported(question.request)
        project = question.asking_project
        self._inside += 1
        try:
            # A turn of its own for the weights: a download of minutes must not hold the model, nor other projects'
            # downloads.
            async with self._fetching.hold_turn(project):
                ask = await self._make_ask(question.source, question.request)
            async with (
                self._turns.hold_turn(project) as turn,
                aclosing(self._run_conversation(question, ask, turn)) as chunks,
            ):
                async for chunk in chunks:
                    yield chunk
        finally:
            self._inside -= 1
            self._used = True

    def count_waiting(self) -> int:
        """Return how many conversations wait for the model, those that have paused too."""
        return self._turns.count_waiting()

    async def run_upkeep(self) -> None:
        """Free the model's memory after a while without chats."""
        idle, quiet = self._settings.engine_idle_seconds / _LOOKS_AN_IDLE_TIME, 0
        while True:
            await asyncio.sleep(idle)
            # `_used` also counts conversations that began and ended between two looks.
            quiet = 0 if self._used or self._inside else quiet + 1
            self._used = False
            if quiet >= _LOOKS_AN_IDLE_TIME and self._speaker.running:
                log.info("No chat for %.0f s: the model's memory is freed", self._settings.engine_idle_seconds)
                # By a turn, so that the program is not stopped under a conversation that has just begun.
                async with self._turns.hold_turn(_HOUSEKEEPING):
                    await self._speaker.stop()

    async def stop(self) -> None:
        await self._speaker.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run_conversation(self, question: EngineQuestion, ask: Ask, turn: Turn) -> AsyncGenerator[Chunk]:
        writer = ChunkWriter(question.request.model)
        reader = _AnswerReader(self._settings.stream_stall_seconds, self._turns)
        async with aclosing(self._speaker.ask(ask, _TurnSlices(self, turn))) as events:
            async for event in events:
                # `fault` distinguishes a broken model or program (502) from a request that cannot be served (400).
                if isinstance(event, AnswerRefused):
                    kind = AnswerFailed if event.fault else InvalidRequest
                    raise kind(event.message, param=event.param, code=event.code)
                for chunk in writer.make_chunks(event):
                    # The model is idle while a slow reader has not taken its piece.
                    with reader.time_delivery():
                        yield chunk

    async def wait_for_others(self, turn: Turn) -> None:
        """Wait until a turn has lasted as long as it may while another project waits."""
        await asyncio.sleep(self._settings.engine_turn_seconds)
        # A paused conversation keeps its cache in memory: at most so many may.
        while not turn.others_wait or self._aside >= _MOST_ASIDE:
            await asyncio.sleep(_LOOK_SECONDS)

    async def let_others_go(self, turn: Turn) -> None:
        """Wait until it is the turn of a conversation that has paused."""
        self._aside += 1
        try:
            await turn.let_others_go()
        finally:
            self._aside -= 1

    async def _make_ask(self, source: ModelSource, request: ChatCompletionRequest) -> Ask:
        loop = asyncio.get_running_loop()
        base, adapter = await loop.run_in_executor(self._thread, self._weights.prepare_weights, source)
        tools = None
        if request.tools and request.tool_choice != "none":
            tools = tuple(tool.model_dump(exclude_none=True) for tool in request.tools)
        return Ask(
            id=f"ask-{secrets.token_hex(8)}",
            base=base,
            adapter=adapter,
            messages=request.messages,
            tools=tools,
            sampling=make_sampling(request, most_tokens=self._settings.engine_max_tokens),
            seconds=self._settings.engine_answer_seconds,
        )


class _TurnSlices:
    """Pauses a conversation once its turn has lasted long enough and another project waits."""

    def __init__(self, engine: LocalEngine, turn: Turn) -> None:
        self._engine = engine
        self._turn = turn

    async def wait_for_pause(self) -> None:
        await self._engine.wait_for_others(self._turn)

    async def wait_to_resume(self) -> None:
        await self._engine.let_others_go(self._turn)


class _AnswerReader:
    """Who reads an answer: one that is slower than the model must not keep the others from it for long."""

    def __init__(self, seconds: float, turns: EngineTurns) -> None:
        self._seconds = seconds
        self._turns = turns
        self._blocked = 0.0

    @contextmanager
    def time_delivery(self) -> Generator[None]:
        """Measure how long a piece of the answer waits to be taken. Raises AnswerFailed."""
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        if took > _BLOCKED_SECONDS:
            self._blocked += took
        if self._blocked > self._seconds and self._turns.count_waiting():
            raise AnswerFailed(
                f"The answer was cut off: reading it kept other conversations waiting for {self._blocked:.0f} "
                "seconds. Read it faster, or ask for fewer tokens."
            )


def refuse_unsupported(request: ChatCompletionRequest) -> None:
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


def make_sampling(request: ChatCompletionRequest, *, most_tokens: int) -> Sampling:
    """Return how to draw, with OpenAI's defaults; `most_tokens` is the limit if the request has none."""
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
