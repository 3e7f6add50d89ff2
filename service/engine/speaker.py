"""The program that answers, as a child process: started when it is first needed, ended when it is idle."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from service.kit.settings import Settings
from service.kit.tether import tether_command
from service.staging.child import trainer_environment
from trainer.contract.chat import (
    CHAT_EVENT,
    AnswerPiece,
    AnswerRefused,
    Ask,
    Began,
    Cancel,
    ChatEvent,
    Done,
    Ended,
    Pause,
    Paused,
    Resume,
    Resumed,
)
from trainer.frozen import Frozen

log = logging.getLogger(__name__)

CHAT_COMMAND = (sys.executable, "-m", "trainer.programs.chat")
_LINE_BYTES = 16 << 20
_END_SECONDS = 10.0
_LOG_NAME = "chat.log"

Answer = Began | AnswerPiece | Ended | Done | AnswerRefused


class ConversationSlices(Protocol):
    """When a conversation is to pause, and for how long."""

    async def wait_for_pause(self) -> None:
        """Wait from the (new) beginning of the model's work until the conversation is to pause."""
        ...

    async def wait_to_resume(self) -> None:
        """Wait until a paused conversation is resumed."""
        ...


class EndlessSlice:
    """The `ConversationSlices` of a conversation that never pauses."""

    async def wait_for_pause(self) -> None:
        await asyncio.Event().wait()

    async def wait_to_resume(self) -> None:
        """Return at once: nothing has paused."""


class Speaker:
    """Asks one conversation at a time, others while it has paused.

    All of it runs in the event loop of the main thread (see `kit/tether.py`). Its caller sees to it that between the
    pauses of one conversation no other is asked.
    """

    def __init__(self, settings: Settings, *, folder: Path, command: Sequence[str] = CHAT_COMMAND) -> None:
        self._folder = folder
        self._command = command
        self._environment = trainer_environment(settings, folder)
        self._process: asyncio.subprocess.Process | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the program is in memory."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """The program's process id, None before its first start."""
        return None if self._process is None else self._process.pid

    async def ask(self, ask: Ask, slices: ConversationSlices | None = None) -> AsyncGenerator[Answer]:
        """Yield the events of the program, up to `Done` or `AnswerRefused`. Leaving earlier cancels the answer."""
        slices = slices or EndlessSlice()
        # One pipe for all: events of a cancelled answer must be read away before the next question.
        await self._wait_for_last_cancel()
        process = await self._ensure_started()
        timer: asyncio.Task[None] | None = None
        aside = is_last = False
        try:
            await self._send_order(process, ask)
            while not is_last:
                event = await self._read_event(process, ask.id)
                if isinstance(event, Began | Resumed):
                    timer = asyncio.create_task(self._pause_after_slice(process, ask.id, slices))
                if isinstance(event, Paused):
                    aside = True
                    await slices.wait_to_resume()
                    await self._wait_for_last_cancel()
                    aside = False
                    await self._send_order(process, Resume(id=ask.id))
                elif not isinstance(event, Resumed):
                    is_last = isinstance(event, Done | AnswerRefused)
                    yield event
        finally:
            if timer is not None:
                timer.cancel()
            # Reading here would take the other conversation's events.
            if aside:  # another is being asked: the program forgets this one without an event
                _write_order(process, Cancel(id=ask.id))
            elif not is_last:  # a task of its own, because this one may be cancelled itself
                self._ending = asyncio.create_task(self._cancel_answer(process, ask.id))

    async def stop(self) -> None:
        """End the program, by force if it takes long."""
        # Taken out first: a question that comes during the stop starts a new program.
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _ensure_started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / _LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *tether_command(self._command),
                cwd=self._folder,
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # To a file: a pipe that nobody reads would block the program once it is full.
                stderr=descriptor,
                start_new_session=True,
                # asyncio's default of 64 KiB for a line would break on long pieces with log-probabilities.
                limit=_LINE_BYTES,
            )
        finally:
            os.close(descriptor)
        log.info("Started the program that answers, process %d", self._process.pid)
        return self._process

    async def _pause_after_slice(
        self, process: asyncio.subprocess.Process, ask_id: str, slices: ConversationSlices
    ) -> None:
        await slices.wait_for_pause()
        await self._send_order(process, Pause(id=ask_id))

    async def _wait_for_last_cancel(self) -> None:
        """Wait until the answer that was left last has been read to its end, so that nobody else reads."""
        while self._ending is not None and not self._ending.done():
            await asyncio.wait({self._ending})

    async def _send_order(self, process: asyncio.subprocess.Process, order: Frozen) -> None:
        assert process.stdin is not None
        _write_order(process, order)
        with suppress(ConnectionError):  # its end is seen at the next read
            await process.stdin.drain()

    async def _read_event(self, process: asyncio.subprocess.Process, ask_id: str) -> ChatEvent:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            event = CHAT_EVENT.validate_json(line)
            # Events of an answer that was cancelled while it was paused are dropped.
            if event.id == ask_id:
                return event
        status = await process.wait()
        log.error("The program that answers ended with status %d; its log: %s", status, self._folder / _LOG_NAME)
        return AnswerRefused(
            id=ask_id,
            code="engine_died",
            message="The program that answers ended by itself, most likely for lack of memory. It is started again "
            "for the next request.",
            fault=True,
        )

    async def _cancel_answer(self, process: asyncio.subprocess.Process, ask_id: str) -> None:
        """Cancel an answer and read its events to the end, so that the next answer begins with its own.

        The program may have paused it before it reads the order: then nothing more comes.
        """
        await self._send_order(process, Cancel(id=ask_id))
        while not isinstance(await self._read_event(process, ask_id), Done | AnswerRefused | Paused):
            pass


def _write_order(process: asyncio.subprocess.Process, order: Frozen) -> None:
    assert process.stdin is not None
    with suppress(ConnectionError, RuntimeError):  # a program that has gone is seen at the next read
        process.stdin.write(order.model_dump_json().encode() + b"\n")
