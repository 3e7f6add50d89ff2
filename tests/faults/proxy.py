"""A TCP proxy that spoils connections on request: cut, reset, refused, slow, or silent (half open)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

_CHUNK = 64 << 10
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close sends RST."""


class Fault(StrEnum):
    """What is wrong with the connections."""

    NONE = "none"
    SLOW = "slow"
    """Every piece waits."""
    SILENT = "half-open"
    """Nothing passes and nothing is closed; what was open then is reset once the line is whole again."""
    RESETTING = "resetting"
    """Every connection, old and new, is reset."""
    CUT = "cut"
    """Open connections are closed in the middle; new ones are refused."""


class FaultProxy:
    """Listens on loopback and passes on to `upstream`: a port of loopback, or a unix socket's path.

    A context manager; its loop runs in a thread of its own.
    """

    def __init__(self, upstream: int | str, *, delay: float = 0.2) -> None:
        self._upstream = upstream
        self._delay = delay
        self._fault = Fault.NONE
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def inject(self, fault: Fault) -> None:
        """Let something be wrong until `heal`."""
        self._call(self._change(fault))

    def heal(self) -> None:
        """Pass everything on again."""
        self._call(self._change(Fault.NONE))

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _change(self, fault: Fault) -> None:
        before, self._fault = self._fault, fault
        if before == Fault.SILENT or fault in (Fault.RESETTING, Fault.CUT):
            for pair in list(self._pairs):
                pair.end(reset=fault != Fault.CUT)
        if fault == Fault.CUT and self._server is not None:
            self._server.close()
            self._server = None
        elif fault != Fault.CUT and self._server is None:
            await self._listen()

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for pair in list(self._pairs):
            pair.end(reset=False)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(writer)
        self._pairs.add(pair)
        try:
            if self._fault == Fault.RESETTING:
                pair.end(reset=True)
                return
            await self._serve(pair, reader)
        except OSError:
            pair.end(reset=True)
        finally:
            self._pairs.discard(pair)
            pair.end(reset=False)

    async def _serve(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        if isinstance(self._upstream, int):
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._upstream)
        else:
            there_reader, there = await asyncio.open_unix_connection(self._upstream)
        pair.there = there
        if pair.ended:
            there.close()
            return
        pumps = [
            asyncio.create_task(self._pump(reader, there)),
            asyncio.create_task(self._pump(there_reader, pair.here)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                while self._fault == Fault.SILENT:
                    await asyncio.sleep(0.05)
                if self._fault == Fault.SLOW:
                    await asyncio.sleep(self._delay)
                writer.write(data)
                await writer.drain()


class _Pair:
    """The two halves of one connection."""

    def __init__(self, here: asyncio.StreamWriter) -> None:
        self.here = here
        self.there: asyncio.StreamWriter | None = None
        self.ended = False

    def end(self, *, reset: bool) -> None:
        """Close both halves, the caller's with RST if asked."""
        if self.ended:
            return
        self.ended = True
        if reset:
            with contextlib.suppress(OSError):
                self.here.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.here.transport.abort()
        if self.there is not None:
            self.there.transport.abort()
