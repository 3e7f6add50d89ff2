"""The API with Python graders switched on, and an engine whose model says what a test wants."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from service.chat.protocol import EngineQuestion
from service.chat.schemas import Chunk, ChunkChoice, Delta, FinishReason, Usage
from service.kit.errors import ServiceError
from tests.service.chat.conftest import ChatWorld, running_chat


@dataclass
class ScriptedModel:
    """The engine's backend: everything but the weights is real."""

    says: str = "0.5"
    ends: FinishReason = "stop"
    fails: ServiceError | None = None
    asked: list[EngineQuestion] = field(default_factory=list[EngineQuestion])

    async def stream_answer(self, question: EngineQuestion) -> AsyncGenerator[Chunk]:
        self.asked.append(question)
        if self.fails is not None:
            raise self.fails
        for piece, reason in ((self.says, None), ("", self.ends)):
            choice = ChunkChoice(index=0, delta=Delta(content=piece), finish_reason=reason)
            yield Chunk(id="chatcmpl-1", created=1, model=question.request.model, choices=[choice])
        usage = Usage(prompt_tokens=20, completion_tokens=5, total_tokens=25)
        yield Chunk(id="chatcmpl-1", created=1, model=question.request.model, choices=[], usage=usage)

    async def run_upkeep(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to stop."""


@dataclass
class GradersWorld:
    chat: ChatWorld
    model: ScriptedModel


@pytest.fixture(scope="session")
def session_world(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Generator[GradersWorld, None, None]:
    model = ScriptedModel()
    folder = tmp_path_factory.mktemp("graders")
    with running_chat(folder, tiny_base, lambda _context: model, python_graders="on") as made:
        yield GradersWorld(made, model)


@pytest.fixture
def world(session_world: GradersWorld) -> GradersWorld:
    """The world, with its model as it was in the beginning."""
    session_world.model.__init__()
    return session_world


@pytest.fixture
def client(world: GradersWorld) -> Generator[httpx.Client, None, None]:
    with world.chat.client() as made:
        yield made
