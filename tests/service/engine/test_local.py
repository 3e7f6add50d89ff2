"""The engine's program dies, idles and comes back; bases are prepared where they are missing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from service.chat.errors import AnswerFailed
from service.chat.protocol import EngineQuestion, ModelSource
from service.chat.schemas import ChatCompletionRequest, Chunk
from service.context import Context
from service.engine.local import LocalEngine
from service.engine.speaker import Speaker
from service.engine.weights import EngineWeights
from service.kit.errors import InvalidRequest
from tests.fixtures.preloaded import start_preloaded
from tests.fixtures.service import make_context, write_catalog

pytestmark = pytest.mark.integration


@pytest.fixture
def context(tmp_path: Path, tiny_base: Path) -> Context:
    return make_context(tmp_path, catalog=write_catalog(tmp_path, tiny_base), engine_idle_seconds=0.4)


def engine_of(context: Context, folder: Path) -> tuple[LocalEngine, Speaker]:
    program = start_preloaded().command
    speaker = Speaker(context.settings, folder=folder / "engine", command=program("trainer.programs.chat"))
    weights = EngineWeights(context, threading.Event(), prepare_command=program("trainer.programs.prepare"))
    return LocalEngine(context.settings, weights, speaker), speaker


def question(*, base: str = "tiny", **more: Any) -> EngineQuestion:
    body = {"model": "mine", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 4, "temperature": 0}
    return EngineQuestion(
        source=ModelSource(base=base, project_id="proj_x"), request=ChatCompletionRequest(**(body | more))
    )


async def text(chunks: AsyncGenerator[Chunk]) -> str:
    pieces = [choice.delta.content or "" async for chunk in chunks for choice in chunk.choices]
    return "".join(pieces)


def test_a_program_that_died_is_named_and_started_again(context: Context, tmp_path: Path) -> None:
    async def story() -> None:
        engine, speaker = engine_of(context, tmp_path)
        before = await text(engine.stream_answer(question()))
        async with aclosing(engine.stream_answer(question(max_tokens=400, logit_bias={"50": 100}))) as chunks:
            await anext(chunks)
            assert speaker.pid is not None
            os.kill(speaker.pid, signal.SIGKILL)
            with pytest.raises(AnswerFailed, match="ended by itself"):
                await text(chunks)
        assert await text(engine.stream_answer(question())) == before
        await engine.stop()

    asyncio.run(story())


def test_who_leaves_early_does_not_disturb_the_next(context: Context, tmp_path: Path) -> None:
    async def story() -> None:
        engine, speaker = engine_of(context, tmp_path)
        before = await text(engine.stream_answer(question()))
        pid = speaker.pid
        for _ in range(3):
            async with aclosing(engine.stream_answer(question(max_tokens=400, logit_bias={"50": 100}))) as chunks:
                await anext(chunks)
        assert await text(engine.stream_answer(question())) == before
        assert speaker.pid == pid
        await engine.stop()

    asyncio.run(story())


def test_memory_is_freed_when_idle(context: Context, tmp_path: Path) -> None:
    async def story() -> None:
        engine, speaker = engine_of(context, tmp_path)
        before = await text(engine.stream_answer(question()))
        assert speaker.running
        tending = asyncio.create_task(engine.run_upkeep())
        async with asyncio.timeout(30):
            while speaker.running:
                await asyncio.sleep(0.02)
        tending.cancel()
        assert await text(engine.stream_answer(question())) == before
        await engine.stop()
        assert not speaker.running

    asyncio.run(story())


def test_weights_that_cannot_be_had_are_named(context: Context, tmp_path: Path) -> None:
    async def story() -> None:
        engine, _ = engine_of(context, tmp_path)
        with pytest.raises(InvalidRequest, match="no longer in the catalog"):
            await text(engine.stream_answer(question(base="gone")))
        gone = question()
        gone.source.job_id = "ftjob-" + "a" * 24
        with pytest.raises(InvalidRequest, match="was deleted"):
            await text(engine.stream_answer(gone))
        await engine.stop()

    asyncio.run(story())


def test_the_program_has_no_secret_in_its_environment(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    monkeypatch.setenv("BURNISH_SECRET_KEY", "verysecret" * 4)

    async def story() -> None:
        engine, speaker = engine_of(context, tmp_path)
        await text(engine.stream_answer(question()))
        assert "verysecret" not in Path(f"/proc/{speaker.pid}/environ").read_text()
        await engine.stop()

    asyncio.run(story())
