"""Receivers of webhooks that hang, and names that lead nowhere."""

from __future__ import annotations

import asyncio
import json

from tests.abuse.attacks.base import Attack, job_body

_EVENT = "fine_tuning.job.cancelled"


class HangingReceivers(Attack):
    name = "ten receivers that hang"
    description = "ten endpoints that take a delivery and never answer, told of one job after the other, and tested"
    short = True
    hangs_up = True

    async def prepare(self) -> None:
        """Open the receivers and create their endpoints."""
        self._server = await asyncio.start_server(_hang, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self._file_id = await self.upload()
        self._endpoints = [
            (await self.order("POST", "/v1/webhook_endpoints", _endpoint(f"http://127.0.0.1:{port}/{number}")))["id"]
            for number in range(10)
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """End jobs, and have every endpoint tested."""
        tests = [self._test(endpoint_id) for endpoint_id in self._endpoints for _ in range(4)]
        await self.together(stop, [self._end_jobs_in_turn(), *tests])

    async def clean(self) -> None:
        """Delete the endpoints and close the receivers."""
        await super().clean()
        self._server.close()

    async def _end_jobs_in_turn(self) -> None:
        while True:
            body = json.dumps(job_body(self._file_id)).encode()
            reply = await self.ask(self.maker.request("POST", "/v1/fine_tuning/jobs", body))
            if reply is not None and reply.status == 200:
                job_id = json.loads(reply.body)["id"]
                await self.ask(self.maker.request("POST", f"/v1/fine_tuning/jobs/{job_id}/cancel"))
            await asyncio.sleep(0.1)

    async def _test(self, endpoint_id: str) -> None:
        body = json.dumps({"event_type": _EVENT}).encode()
        while True:
            await self.ask(self.maker.request("POST", f"/v1/webhook_endpoints/{endpoint_id}/test", body))
            await asyncio.sleep(0.05)


class UnknownNames(Attack):
    name = "twenty names that nobody knows"
    description = "endpoints at twenty host names that no server of names can resolve, 20 at once"
    hangs_up = True

    async def run(self, stop: asyncio.Event) -> None:
        """Create them, each again and again."""
        await self.together(stop, [self._caller(number) for number in range(20)])

    async def _caller(self, number: int) -> None:
        # Names under .invalid never exist (RFC 6761).
        body = json.dumps(_endpoint(f"https://n{number}.{'a' * 40}.invalid/hooks")).encode()
        while True:
            await self.ask(self.maker.request("POST", "/v1/webhook_endpoints", body))
            await asyncio.sleep(0.5)


def _endpoint(url: str) -> dict[str, object]:
    return {"name": "hostile", "url": url, "event_types": [_EVENT]}


async def _hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything and answer nothing, until the sender hangs up."""
    try:
        while await reader.read(1 << 16):
            pass
    except OSError:
        pass
    finally:
        writer.close()


ALL = (HangingReceivers, UnknownNames)
