"""Turns of conversations inside the engine: by project, with a bounded number of each project's and of all waiting."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from service.chat.errors import EngineBusy
from service.kit.fair_turns import FairTurns, Turn, TurnsExhausted
from service.kit.settings import Settings


class EngineTurns:
    """Places for conversations at work."""

    def __init__(self, settings: Settings, places: int = 1, *, per_project: int | None = None) -> None:
        self._turns = FairTurns(
            places,
            noun="conversations",
            per_project=per_project,
            waiting=settings.engine_waiting,
            waiting_per_project=settings.engine_waiting_per_project,
        )

    @asynccontextmanager
    async def hold_turn(self, project_id: str) -> AsyncGenerator[Turn]:
        """Wait for a place and hold it for the length of the block. Raises EngineBusy if too many wait."""
        try:
            async with self._turns.hold_turn(project_id) as turn:
                yield turn
        except TurnsExhausted as error:
            raise EngineBusy(error.message) from error

    def count_waiting(self) -> int:
        """Return how many conversations wait for a place."""
        return self._turns.count_waiting()
