"""Who answers inside the engine process: the program on this machine, or an inference server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from service.chat.protocol import EngineQuestion
from service.chat.schemas import Chunk


class Backend(Protocol):
    """Answers questions. Its methods run in the event loop of the main thread."""

    def stream_answer(self, question: EngineQuestion) -> AsyncGenerator[Chunk]:
        """Yield chunks, the last with the usage. Leaving the iteration ends the work.

        Raises a ServiceError: before the first chunk for a bad question, later for an interrupted answer.
        """
        ...

    async def run_upkeep(self) -> None:
        """Do what is to be done between questions, until cancelled."""
        ...

    async def stop(self) -> None:
        """Let go of everything."""
        ...
