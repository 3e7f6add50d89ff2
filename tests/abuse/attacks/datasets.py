"""Files that are small to upload and dear to check, and jobs that have them checked again and again."""

from __future__ import annotations

import asyncio
import gzip
import json
from abc import abstractmethod

from tests.abuse.attacks.base import Attack, job_body
from tests.fixtures.packed import parquet_bomb, table_bytes, zstd


class HostileFile(Attack):
    """Uploads a file again and again; what is taken becomes the training and validation file of several jobs."""

    filename = "t.jsonl"
    at_once = 4

    async def prepare(self) -> None:
        """Make the file."""
        self._data = await asyncio.to_thread(self.data)

    async def run(self, stop: asyncio.Event) -> None:
        """Upload, and create jobs."""
        await self.together(stop, [self._caller(stop) for _ in range(self.at_once)])

    async def _caller(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            reply = await self.ask(self.maker.upload(self._data, self.filename))
            if reply is None or reply.status != 200:
                await asyncio.sleep(0.05)
                continue
            file_id = json.loads(reply.body)["id"]
            for _ in range(3):
                body = job_body(file_id) | {"validation_file": file_id}
                await self.ask(self.maker.request("POST", "/v1/fine_tuning/jobs", json.dumps(body).encode()))

    @abstractmethod
    def data(self) -> bytes:
        """Return the file."""


class EmptyRows(HostileFile):
    name = "gzip of 400,000 empty rows"
    description = "400,000 lines `{}` in a kilobyte or two of gzip, as training and validation file of jobs"
    short = True

    def data(self) -> bytes:
        return gzip.compress(b"{}\n" * 400_000, mtime=0)


class SwollenParquet(HostileFile):
    name = "tiny Parquet that swells"
    description = "300 rows of the same mebibyte of text in a few kilobytes of Parquet, as files of jobs"
    filename = "t.parquet"

    def data(self) -> bytes:
        return parquet_bomb()


class WideParquet(HostileFile):
    name = "Parquet with 20,000 columns"
    description = "one row in 20,000 columns, whose description is larger than the data, as files of jobs"
    filename = "t.parquet"
    at_once = 2

    def data(self) -> bytes:
        import pyarrow

        return table_bytes(pyarrow.table({f"c{number}": ["x"] for number in range(20_000)}))


class GzipLines(HostileFile):
    name = "two million lines in 4 kB"
    description = 'gzip of "x\\n" 2,097,152 times, uploaded 45 times, 15 at once'
    at_once = 15

    def data(self) -> bytes:
        return gzip.compress(b"x\n" * (1 << 21), mtime=0)


class EmptyFrames(HostileFile):
    name = "200,000 empty zstd frames"
    description = "200,000 frames of zstd without content, one after the other, then one row"
    at_once = 2

    def data(self) -> bytes:
        return zstd.compress(b"") * 200_000 + zstd.compress(b'{"text":"x"}\n')


ALL = (EmptyRows, SwollenParquet, WideParquet, GzipLines, EmptyFrames)
