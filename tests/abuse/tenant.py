"""`python -m tests.abuse.tenant`: a quiet tenant at its ordinary work, in a process of its own, and what it waits.

The first line of the standard input says where (JSON, `Place`). The process trains, chats and is told of both once,
prints `ready`, and goes on until its standard input is closed. Each wait is a line of JSON in the record (`Sample`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any, Literal

from tests.abuse.attacks.base import ROW, job_body
from tests.fixtures.plain_http import BadReply, Connections, Reply, RequestMaker

Wait = Literal["read", "upload", "chat", "webhook", "job"]
WAITS: tuple[Wait, ...] = ("upload", "chat", "webhook", "job")
READS_A_SECOND = 20
_PATIENCE: dict[Wait, float] = {"read": 60.0, "upload": 120.0, "chat": 120.0, "webhook": 120.0, "job": 400.0}
"""Seconds after which the tenant gives up a wait, which is then a fault."""
_POLL_SECONDS, _PAUSE_SECONDS = 0.1, 0.5


@dataclass(frozen=True)
class Place:
    """Where the tenant works, and the file for what it waits."""

    url: str
    key: str
    record: str
    job_pause: float
    """Seconds between the end of a job and the next one."""


@dataclass(frozen=True)
class Sample:
    """One wait: its beginning by the monotonic clock, which all processes of a machine share, and its length."""

    kind: Wait
    at: float
    seconds: float
    fault: str | None = None
    """What the tenant got instead of what it waited for."""

    @property
    def end(self) -> float:
        """When it was over."""
        return self.at + self.seconds


class Fault(Exception):
    """The service did not do what the tenant asked for."""


class QuietTenant:
    """Its loops run side by side; each waits for one thing after the other, but for the reads, which are on time."""

    def __init__(self, place: Place, record: IO[str]) -> None:
        self._connections = Connections(place.url)
        self._maker = RequestMaker.for_url(place.url, place.key)
        self._record = record
        self._job_pause = place.job_pause
        self._notices: dict[str, asyncio.Event] = {}
        self._file_id = self._job_id = ""

    async def settle_in(self, receiver: str) -> None:
        """Do everything once: make the webhook endpoint, upload, train, chat."""
        events = ["fine_tuning.job.succeeded", "fine_tuning.job.cancelled"]
        await self._post("/v1/webhook_endpoints", {"name": "quiet", "url": receiver, "event_types": events})
        self._file_id = (await self._order(self._maker.upload(ROW * 20)))["id"]
        self._job_id, _ = await asyncio.gather(self._train(), self._chat())
        assert self._job_id, "the first job failed: the record says why"

    async def work(self) -> None:
        """Work until the task is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_on_time())
            tasks.create_task(self._repeat("upload", self._upload))
            tasks.create_task(self._repeat("chat", self._chat))
            tasks.create_task(self._repeat("webhook", self._cancel))
            tasks.create_task(self._train_in_turn())

    def take_notice(self, body: bytes) -> None:
        """Note that the webhook of a job's end has come."""
        self._notice_of(json.loads(body)["data"]["id"]).set()

    async def _repeat(self, kind: Wait, step: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        while True:
            await self._timed(kind, step)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _train_in_turn(self) -> None:
        while True:
            await self._train()
            await asyncio.sleep(self._job_pause)

    async def _timed(self, kind: Wait, step: Callable[[], Coroutine[Any, Any, Any]], *, at: float | None = None) -> Any:
        began, result, fault = at or time.monotonic(), None, None
        try:
            async with asyncio.timeout(_PATIENCE[kind]):
                result = await step()
        except TimeoutError:
            fault = f"nothing for {_PATIENCE[kind]:.0f} s"
        except (OSError, EOFError, BadReply) as error:
            fault = f"broken connection: {error!r}"
        except Fault as error:
            fault = str(error)
        sample = Sample(kind, began, time.monotonic() - began, fault)
        self._record.write(json.dumps(asdict(sample)) + "\n")
        self._record.flush()
        return result

    async def _read_on_time(self) -> None:
        paths = [
            f"/v1/files/{self._file_id}",
            "/v1/files?limit=20",
            f"/v1/fine_tuning/jobs/{self._job_id}",
            "/v1/fine_tuning/jobs?limit=20",
            f"/v1/fine_tuning/jobs/{self._job_id}/events?limit=20",
        ]
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in count():
                due = began + number / READS_A_SECOND
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                request = self._maker.request("GET", paths[number % len(paths)])
                tasks.create_task(self._timed("read", lambda request=request: self._read(request), at=due))

    async def _read(self, request: bytes) -> None:
        """Read once: the API answers reads of a quiet tenant whatever others do."""
        reply = await self._connections.send(request)
        if reply.status != 200:
            raise Fault(_shown(reply))

    async def _upload(self) -> str:
        unique = json.dumps({"messages": [{"role": "user", "content": str(time.monotonic())}]}).encode()
        answer = unique.replace(b"]}", b', {"role": "assistant", "content": "x"}]}\n')
        return (await self._order(self._maker.upload(ROW * 20 + answer)))["id"]

    async def _chat(self) -> None:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 8}
        await self._post("/v1/chat/completions", body)

    async def _cancel(self) -> None:
        """Cancel a job as soon as it is there, and wait for the notice of that."""
        job_id = await self._create_job()
        await self._order(self._maker.request("POST", f"/v1/fine_tuning/jobs/{job_id}/cancel"))
        await self._notice_of(job_id).wait()

    async def _train(self) -> str:
        """Run a job to its end, and wait for the notice of that."""
        job_id = await self._timed("job", self._run_job)
        if job_id is not None:
            await self._timed("webhook", self._notice_of(job_id).wait)
        return job_id or ""

    async def _run_job(self) -> str:
        job_id = await self._create_job()
        while True:
            job = await self._order(self._maker.request("GET", f"/v1/fine_tuning/jobs/{job_id}"))
            if job["status"] == "succeeded":
                return job_id
            if job["status"] in ("failed", "cancelled"):
                raise Fault(f"{job_id} {job['status']}: {job['error']}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _create_job(self) -> str:
        return (await self._post("/v1/fine_tuning/jobs", job_body(self._file_id)))["id"]

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._order(self._maker.request("POST", path, json.dumps(body).encode()))

    async def _order(self, request: bytes) -> dict[str, Any]:
        """Send a request as an SDK does: again if the connection breaks, or after the time that a refusal names.

        Raises Fault; what fails for long ends with the time of the wait.
        """
        while True:
            try:
                reply = await self._connections.send(request)
            except (OSError, EOFError):
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if reply.status == 200:
                return json.loads(reply.body)
            if reply.status not in (429, 503) or reply.headers.get("x-should-retry") == "false":
                raise Fault(_shown(reply))
            await asyncio.sleep(min(10.0, float(reply.headers.get("retry-after", _PAUSE_SECONDS))))

    def _notice_of(self, job_id: str) -> asyncio.Event:
        return self._notices.setdefault(job_id, asyncio.Event())


def _shown(reply: Reply) -> str:
    return f"{reply.status} {reply.body[:300]!r}"


@asynccontextmanager
async def _receiver(take: Callable[[bytes], None]) -> AsyncIterator[str]:
    """Receive webhooks on loopback; give the URL."""

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
            take(await reader.readexactly(int(length.partition(b":")[2])))
            writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
    finally:
        server.close()


async def _main(place: Place) -> None:
    with Path(place.record).open("a", encoding="utf-8") as record:
        tenant = QuietTenant(place, record)
        async with _receiver(tenant.take_notice) as url:
            await tenant.settle_in(url)
            print("ready", flush=True)
            work = asyncio.create_task(tenant.work())
            closed = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
            await asyncio.wait({work, closed}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
    # Requests under way end with the process: nobody waits for their answers.
    os._exit(0)


def main() -> None:
    """Work at the place that the standard input names."""
    asyncio.run(_main(Place(**json.loads(sys.stdin.readline()))))


if __name__ == "__main__":
    main()
