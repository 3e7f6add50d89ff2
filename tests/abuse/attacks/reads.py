"""Reading that costs the service more than the caller, and writing that is refused."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from tests.abuse.attacks.base import ROW, Attack
from tests.abuse.scale import PATIENCE
from tests.fixtures.plain_http import BadReply, Reply, RequestMaker, read_head

_STREAMS = 500
_WRITES_A_SECOND = 200


class ManyPairs(Attack):
    name = "lists with 1,500 metadata pairs"
    description = "lists of jobs that are narrowed by 1,500 pairs of metadata, on 8 connections"
    short = True

    async def run(self, stop: asyncio.Event) -> None:
        """List."""
        pairs = "&".join(f"metadata[k{number}]=v{number}" for number in range(1_500))
        request = self.maker.request("GET", f"/v1/fine_tuning/jobs?limit=20&{pairs}")
        await self.repeat(stop, lambda _number: request, at_once=8)


class EventStreams(Attack):
    name = "500 event streams"
    description = "500 connections that follow the events of one paused job"
    short = True
    hangs_up = True

    async def prepare(self) -> None:
        """Make a job that never ends by itself."""
        job_id = await self.create_job(await self.upload())
        await self.order("POST", f"/v1/fine_tuning/jobs/{job_id}/pause")
        self._request = self.maker.request("GET", f"/v1/fine_tuning/jobs/{job_id}/events?stream=true")

    async def run(self, stop: asyncio.Event) -> None:
        """Follow."""
        await self.together(stop, [self._follow() for _ in range(_STREAMS)])

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await asyncio.open_connection(self.connections.host, self.connections.port)
                    writer.write(self._request)
                    status, headers = await read_head(reader)
                    body = b"" if status == 200 else await reader.readexactly(int(headers.get("content-length", 0)))
            except TimeoutError:
                self.answers.hung += 1
            except (OSError, EOFError, BadReply):
                self.answers.broken += 1
            except asyncio.CancelledError:
                self.answers.abandoned += 1
                raise
            else:
                self.answers.note(Reply(status, headers, body))
                if status == 200:
                    await _read_to_the_end(reader)
                writer.close()
            await asyncio.sleep(1)


class RefusedWrites(Attack):
    name = "200 refused writes a second"
    description = "a key that may only read creates uploads, 200 a second: each is refused, and audited"
    short = True
    most_audit_rows = 30.0

    async def run(self, stop: asyncio.Event) -> None:
        """Write at a fixed rate, whether earlier answers have come or not."""
        maker = RequestMaker.for_url(self.target.url, self.target.reader_key)
        body = b'{"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 1000, "mime_type": "text/jsonl"}'
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(1 << 30):
                await asyncio.sleep(max(0.0, began + number / _WRITES_A_SECOND - time.monotonic()))
                if stop.is_set():
                    return
                tasks.create_task(self._write(maker.request("POST", "/v1/uploads", body)))

    async def _write(self, request: bytes) -> None:
        await self.ask(request)


class Uploads(Attack):
    name = "uploads in a loop"
    description = "one small dataset, uploaded on 16 connections under fresh idempotency keys"

    async def run(self, stop: asyncio.Event) -> None:
        """Upload."""
        await self.repeat(stop, lambda number: self.maker.upload(ROW * (number % 20 + 1)), at_once=16)


async def _read_to_the_end(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(1 << 16):
            pass


ALL = (ManyPairs, EventStreams, RefusedWrites, Uploads)
