"""What a stranger does below the API: connections that send nothing, little, or what is not HTTP; and floods."""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress

from tests.abuse.attacks.base import Attack
from tests.abuse.scale import PATIENCE
from tests.fixtures.plain_http import BadReply, Reply, read_reply

_DRIP_SECONDS, _SHOUT_SECONDS = 0.2, 2.0


class RawAttack(Attack):
    """Opens connections and writes to them what it likes."""

    by = "stranger"
    breaks = True

    async def hold(self, stop: asyncio.Event, start: bytes, drip: Iterator[bytes]) -> None:
        """Open connections one after the other; on each send `start`, then a piece of `drip` now and then."""
        while not stop.is_set():
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await asyncio.open_connection(self.connections.host, self.connections.port)
            except OSError:
                self.answers.broken += 1
                await asyncio.sleep(_DRIP_SECONDS)
                continue
            answer = asyncio.create_task(read_reply(reader))
            writer.write(start)
            while not stop.is_set() and not answer.done():
                writer.write(next(drip))
                await asyncio.wait({answer}, timeout=_DRIP_SECONDS)
            await self._judge(answer)
            writer.close()

    async def shout(self, data: bytes) -> None:
        """Send bytes on a connection of their own, and take the answer or the end that comes."""
        try:
            async with asyncio.timeout(_SHOUT_SECONDS):
                reader, writer = await asyncio.open_connection(self.connections.host, self.connections.port)
                writer.write(data)
                try:
                    self.answers.note(await read_reply(reader))
                finally:
                    writer.close()
        except TimeoutError:  # the service may wait for more of what looks unfinished
            self.answers.abandoned += 1
        except (OSError, EOFError, BadReply):
            self.answers.broken += 1

    async def _judge(self, answer: asyncio.Task[Reply]) -> None:
        if not answer.done():
            answer.cancel()
            self.answers.abandoned += 1
            with suppress(asyncio.CancelledError):
                await answer
            return
        try:
            self.answers.note(answer.result())
        except (OSError, EOFError, BadReply):
            self.answers.broken += 1


class IdleConnections(RawAttack):
    name = "400 idle connections"
    description = "400 connections that send nothing, to processes with a soft limit of 160 open files"
    short = True

    async def run(self, stop: asyncio.Event) -> None:
        """Keep so many open."""
        await self.together(stop, [self.hold(stop, b"", _nothing()) for _ in range(400)])


class SlowHeads(RawAttack):
    name = "slow heads"
    description = "120 connections whose request's head comes a byte at a time"

    async def run(self, stop: asyncio.Event) -> None:
        """Drip heads."""
        start = f"GET /v1/files HTTP/1.1\r\nHost: {self.maker.host}\r\nx-slow: ".encode()
        await self.together(stop, [self.hold(stop, start, _letters()) for _ in range(120)])


class SlowBodies(RawAttack):
    name = "slow bodies"
    description = "120 connections whose body comes a byte at a time, to operations that read JSON and to an upload"

    async def run(self, stop: asyncio.Event) -> None:
        """Drip bodies."""
        heads = [self.maker.request("POST", path, b"x" * 100_000)[:-99_999] for path in _SLOW_PATHS]
        await self.together(stop, [self.hold(stop, heads[n % len(heads)], _letters()) for n in range(120)])


class BadHeads(RawAttack):
    name = "bad heads"
    description = "hosts, versions, methods, targets and lengths that no client sends"
    short = True

    async def run(self, stop: asyncio.Event) -> None:
        """Send them in turn."""

        async def caller(first: int) -> None:
            for number in _counted(first):
                if stop.is_set():
                    return
                await self.shout(BAD_HEADS[number % len(BAD_HEADS)])

        await self.together(stop, [caller(n * 3) for n in range(8)])


class TlsHellos(RawAttack):
    name = "TLS hellos"
    description = "the first bytes of TLS, then noise, to a port that speaks HTTP"

    async def run(self, stop: asyncio.Event) -> None:
        """Send them."""
        noise = random.Random(7).randbytes(507)
        hello = bytes.fromhex("1603010200010001fc0303") + noise

        async def caller() -> None:
            while not stop.is_set():
                await self.shout(hello)

        await self.together(stop, [caller() for _ in range(16)])


class Flood(Attack):
    """Asks for one page without a key, as fast as it is answered."""

    by = "stranger"

    async def run(self, stop: asyncio.Event) -> None:
        """Ask on many connections."""
        request = self.maker.request("GET", self.path())
        await self.repeat(stop, lambda _number: request, at_once=32)

    @abstractmethod
    def path(self) -> str:
        """Return the page."""


class DocumentFlood(Flood):
    name = "/openapi.json flood"
    description = "the API's description, the largest page there is without a key, on 32 connections"
    short = True

    def path(self) -> str:
        return "/openapi.json"


class ReadinessFlood(Flood):
    name = "/readyz flood"
    description = "the question that looks at database and blob store, without a key, on 32 connections"

    def path(self) -> str:
        return "/readyz"


_SLOW_PATHS = ("/v1/fine_tuning/jobs", "/v1/files", "/v1/chat/completions", "/v1/uploads/upload_1/parts")
BAD_HEADS = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /v1/files HTTP/1.1\r\nHost: \x00\xff\xfe\r\n\r\n",
    b"GET /v1/files HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /v1/files HTTP/1.1\r\nHost: " + b"a" * 60_000 + b"\r\n\r\n",
    b"GET /v1/files HTTP/1.1\r\nHost: " + b"a" * 80_000 + b"\r\n\r\n",
    b"GET /v1/files HTTP/1.1\r\nHost: ]:70000[/?#@\r\n\r\n",
    b"GET /v1/files HTTP/0.9\r\n\r\n",
    b"GET /v1/files HTTP/1.7\r\nHost: a\r\n\r\n",
    b"GET /v1/files HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET /v1/files HTTP/-1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /v1/files\r\n\r\n",
    b"BREW /v1/files HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n",
    b"GET http://[::1/v1/files HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /v1/文件 HTTP/1.1\r\nHost: 主机\r\n\r\n".encode(),
    b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"GET /v1/files HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 9_000 + b"\r\n",
    b"GET /v1/files HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"\r\n" * 5_000,
    b"\x00" * 1_000,
)


def _nothing() -> Iterator[bytes]:
    while True:
        yield b""


def _letters() -> Iterator[bytes]:
    while True:
        yield b"a"


def _counted(first: int) -> Iterator[int]:
    return iter(range(first, 1 << 30))


STRANGERS = (IdleConnections, SlowHeads, SlowBodies, BadHeads, TlsHellos, DocumentFlood, ReadinessFlood)
