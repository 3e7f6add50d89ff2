"""Work that one tenant asks of what all share: the engine, the worker, and what runs beside its trainings."""

from __future__ import annotations

import asyncio
import json

from tests.abuse.attacks.base import ROW, Attack, job_body

_EXPORTS = (("adapter", None), ("merged", "f32"), ("merged", "f16"), ("merged", "bf16"), ("gguf", "f16"))
_LONG_EPOCHS, _LONG_ROWS = 50, 200


class EndlessChats(Attack):
    name = "40 chats of 16 endless answers"
    description = "40 chats at once, each for 16 answers of 1,048,576 tokens"
    short = True
    hangs_up = True

    async def run(self, stop: asyncio.Event) -> None:
        """Chat."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": "你好"}], "n": 16, "max_tokens": 1_048_576}
        request = self.maker.request("POST", "/v1/chat/completions", json.dumps(body).encode())
        await self.together(stop, [self._chat(request) for _ in range(40)])

    async def _chat(self, request: bytes) -> None:
        while True:
            reply = await self.ask(request)
            if reply is None or reply.status != 200:
                await asyncio.sleep(0.2)


class UrgentJobs(Attack):
    name = "eight urgent jobs"
    description = "eight jobs of priority 100 on one worker, which take several times as long as the attack together"

    async def prepare(self) -> None:
        """Upload the dataset."""
        self._file_id = await self.upload(ROW * _LONG_ROWS)

    async def run(self, stop: asyncio.Event) -> None:
        """Create them, then wait."""
        body = job_body(self._file_id, epochs=_LONG_EPOCHS) | {"priority": 100}
        for _ in range(8):
            await self.ask(self.maker.request("POST", "/v1/fine_tuning/jobs", json.dumps(body).encode()))
        assert self.answers.statuses.keys() & {"200", "429"}, "no job was created, and none was refused as one too many"
        await stop.wait()


class Previews(Attack):
    name = "previews in a loop"
    description = "previews of a job on 6 connections"
    hangs_up = True

    async def prepare(self) -> None:
        """Upload the dataset."""
        self._file_id = await self.upload()

    async def run(self, stop: asyncio.Event) -> None:
        """Ask for previews."""
        body = json.dumps(job_body(self._file_id)).encode()
        request = self.maker.request("POST", "/v1/fine_tuning/jobs/preview?rows=50", body)
        await self.repeat(stop, lambda _number: request, at_once=6)


class Exports(Attack):
    name = "exports in a loop"
    description = "exports of one model in five forms, deleted and asked for again"

    async def prepare(self) -> None:
        """Train a model to export."""
        job_id = await self.create_job(await self.upload())
        while (job := await self.order("GET", f"/v1/fine_tuning/jobs/{job_id}"))["status"] != "succeeded":
            assert job["status"] not in ("failed", "cancelled"), job
            await asyncio.sleep(0.5)
        self._path = f"/v1/models/{job['fine_tuned_model']}/exports"

    async def run(self, stop: asyncio.Event) -> None:
        """Ask for each form, and delete what was asked for."""
        await self.together(stop, [self._caller(stop, *form) for form in _EXPORTS])

    async def _caller(self, stop: asyncio.Event, form: str, precision: str | None) -> None:
        body = json.dumps({"format": form} | ({"precision": precision} if precision else {})).encode()
        while not stop.is_set():
            reply = await self.ask(self.maker.request("POST", self._path, body))
            if reply is not None and reply.status == 200:
                await asyncio.sleep(0.5)
                export_id = json.loads(reply.body)["id"]
                await self.ask(self.maker.request("GET", f"{self._path}/{export_id}/content"))
                await self.ask(self.maker.request("DELETE", f"{self._path}/{export_id}"))
            await asyncio.sleep(0.05)

    async def clean(self) -> None:
        """Delete the exports that are left."""
        for export in (await self.order("GET", self._path))["data"]:
            await self.connections.send(self.maker.request("DELETE", f"{self._path}/{export['id']}"))
        await super().clean()


ALL = (EndlessChats, UrgentJobs, Previews, Exports)
