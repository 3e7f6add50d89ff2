"""The embedded engine's turns with a program that is scripted: slow readers, the bound of all, and the order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from service.chat.errors import AnswerFailed, EngineBusy
from service.chat.protocol import EngineQuestion, ModelSource
from service.chat.schemas import ChatCompletionRequest, Chunk
from service.context import Context
from service.engine.local import LocalEngine
from service.engine.speaker import ConversationSlices, Speaker
from service.engine.weights import EngineWeights
from tests.fixtures.service import make_context
from trainer.contract.chat import AnswerPiece, Ask, Began, Done, Ended

SETTINGS = {"engine_waiting": 3, "engine_waiting_per_project": 2, "stream_stall_seconds": 0.2}


class Scripted:
    """Says one word a token, and notes who is answered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.running = True

    async def ask(self, ask: Ask, _slices: ConversationSlices) -> AsyncGenerator[Any]:
        self.asked.append(str(ask.messages[0].content))
        yield Began(id=ask.id, prompt_tokens=1)
        for _ in range(ask.sampling.max_tokens):
            await asyncio.sleep(0)
            yield AnswerPiece(id=ask.id, index=0, text="好")
        yield Ended(id=ask.id, index=0, finish_reason="stop", tokens=ask.sampling.max_tokens)
        yield Done(id=ask.id)

    async def stop(self) -> None:
        self.running = False


class Ready:
    """Weights that are there."""

    def prepare_weights(self, _source: ModelSource) -> tuple[Path, None]:
        return Path("/base"), None


@pytest.fixture
def context(tmp_path: Path) -> Generator[Context]:
    made = make_context(tmp_path, **SETTINGS)
    yield made
    made.db.close()


def engine_of(context: Context) -> tuple[LocalEngine, Scripted]:
    program = Scripted()
    return LocalEngine(context.settings, cast(EngineWeights, Ready()), cast(Speaker, program)), program


def question(project: str, content: str = "你好", max_tokens: int = 4) -> EngineQuestion:
    request = ChatCompletionRequest.model_validate(
        {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": max_tokens}
    )
    return EngineQuestion(source=ModelSource(base="tiny", project_id="proj_owner"), request=request, project_id=project)


async def text(chunks: AsyncGenerator[Chunk]) -> str:
    return "".join([choice.delta.content or "" async for chunk in chunks for choice in chunk.choices])


async def wait_for_queue(engine: LocalEngine, length: int) -> None:
    async with asyncio.timeout(20):
        while engine.count_waiting() != length:
            await asyncio.sleep(0.005)


def test_the_order_is_by_turns_and_one_project_never_fills_the_queue(context: Context) -> None:
    """Whoever shares another project's model waits among its own project's conversations."""

    async def story() -> None:
        engine, program = engine_of(context)
        async with aclosing(engine.stream_answer(question("greedy", "first"))) as held:
            await anext(held)
            waiting = []
            for number in range(2):
                waiting.append(asyncio.create_task(text(engine.stream_answer(question("greedy", f"greedy {number}")))))
                await wait_for_queue(engine, number + 1)
            with pytest.raises(EngineBusy, match="2 conversations of this project"):
                await text(engine.stream_answer(question("greedy")))
            waiting.append(asyncio.create_task(text(engine.stream_answer(question("安静", "安静")))))
            await wait_for_queue(engine, 3)
            with pytest.raises(EngineBusy, match="3 conversations of all projects"):
                await text(engine.stream_answer(question("third")))
        assert await asyncio.gather(*waiting) == ["好" * 4] * 3
        assert program.asked == ["first", "安静", "greedy 0", "greedy 1"]
        await engine.stop()

    asyncio.run(story())


def test_who_reads_slowly_keeps_the_others_waiting_for_a_bounded_time(context: Context) -> None:
    """Alone, a slow reader gets everything; while another waits, the answer is broken off."""

    async def story() -> None:
        engine, _ = engine_of(context)

        async def read_slowly() -> int:
            count = 0
            async for _chunk in engine.stream_answer(question("slow", max_tokens=8)):
                count += 1
                await asyncio.sleep(0.06)
            return count

        assert await read_slowly() > 8
        slow = asyncio.create_task(read_slowly())
        await asyncio.sleep(0.02)
        assert await text(engine.stream_answer(question("安静"))) == "好" * 4
        with pytest.raises(AnswerFailed, match="kept other conversations waiting"):
            await slow
        await engine.stop()

    asyncio.run(story())


def test_an_older_api_names_no_project_and_waits_among_the_models_owners() -> None:
    asked = question("x").model_copy(update={"project_id": None})
    assert asked.asking_project == "proj_owner"


def test_threads_of_the_engine_end_with_it(context: Context) -> None:
    before = set(threading.enumerate())  # those of engines in other tests' fixtures

    async def story() -> None:
        engine, _ = engine_of(context)
        await text(engine.stream_answer(question("a")))
        await engine.stop()

    asyncio.run(story())
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("weights"):
            thread.join(10)
            assert not thread.is_alive()
