"""`python -m service.files.check_process FD`: check the dataset at stdin; the request lies in the open file FD.

A process of its own with bounded memory and processor time and no secrets, because a file from anywhere is unpacked
and parsed: what that costs is nobody else's. The outcome is written to stdout as JSON.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from burnish.datasets import ROW_FORMATS, DatasetSummary, ItemRows, Limits, Packing, Problem, RowFormat, check_file
from burnish.datasets.errors import UnreadableError
from burnish.datasets.packing import Unpacker, limit_growth
from burnish.datasets.parquet import read_lines

MEMORY_BYTES = 1 << 30
_NICENESS = 10
Paths = tuple[tuple[str | int, ...], ...]
_PIECE = 1 << 18


@dataclass(frozen=True)
class CheckRequest:
    """What to check: content in a known packing, for a row format or (`format_name` None) for any."""

    filename: str
    packing: Packing
    size: int
    """The file's bytes, or the most that they can become."""
    format_name: str | None
    needs: Paths
    references: Paths
    """What a grader asks for in each row, and what of it may not be empty; see `ItemRows`."""
    limits: Limits
    max_line_bytes: int
    max_rows: int
    seconds_per_gib: float
    least_seconds: float = 10.0
    """So much processor time a check may take, however little the file may hold."""

    @property
    def row_format(self) -> RowFormat | None:
        """The format of the rows; None for any JSON objects."""
        if self.format_name is None:
            return None
        return ItemRows(self.needs, self.references) if self.needs else ROW_FORMATS[self.format_name]

    @property
    def niceness(self) -> int:
        """By how much the check's process steps back behind others.

        The check of a plain upload advances at the speed of its sender, who waits: it costs no more than its bytes do.
        """
        return 0 if self.format_name is None and self.packing == "none" else _NICENESS

    def seconds_for(self, size: int) -> float:
        """Return how much processor time the check of `size` bytes of the file may take."""
        return max(self.least_seconds, self.seconds_per_gib * self.limits.most_bytes(self.packing, size) / (1 << 30))

    @property
    def too_slow(self) -> str:
        """What is wrong with a file that takes longer."""
        return (
            f"checking it takes more processor time than is allowed ({self.seconds_per_gib:g} seconds for each GiB "
            f"that it may hold, at least {self.least_seconds:g}): split it into several files, or upload it "
            "uncompressed"
        )

    def dump(self) -> bytes:
        """Return the request as JSON."""
        return orjson.dumps(asdict(self))

    @classmethod
    def load(cls, data: bytes) -> CheckRequest:
        """Read what `dump` wrote."""
        fields: dict[str, Any] = orjson.loads(data)
        paths: dict[str, Any] = {
            name: tuple(tuple(path) for path in fields.pop(name)) for name in ("needs", "references")
        }
        limits = Limits(**fields.pop("limits"))
        return cls(**fields, **paths, limits=limits)


def check_content(request: CheckRequest, content: Iterator[bytes]) -> DatasetSummary:
    """Check unpacked content as the request says."""
    return check_file(
        request.filename,
        content,
        request.row_format,
        packing=request.packing,
        max_line_bytes=request.max_line_bytes,
        max_rows=request.max_rows,
    )


def dump_summary(summary: DatasetSummary) -> bytes:
    """Return an outcome as JSON."""
    return orjson.dumps(asdict(summary))


def load_summary(data: bytes) -> DatasetSummary:
    """Read what `dump_summary` wrote."""
    fields: dict[str, Any] = orjson.loads(data)
    problems = tuple(Problem(**problem) for problem in fields.pop("problems"))
    return DatasetSummary(**fields, problems=problems)


def main() -> int:
    """Check what comes; return the exit status."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        request = CheckRequest.load(file.read())
    _limit_resources(request)
    try:
        summary = check_content(request, _read_content(request))
    except MemoryError:
        reason = f"one piece of it takes more than {MEMORY_BYTES >> 30} GiB of memory: write shorter rows"
        summary = DatasetSummary(0, (Problem(0, reason),))
    sys.stdout.buffer.write(dump_summary(summary))
    sys.stdout.buffer.flush()
    # What waits in the pipe is not needed, and objects by the million need not be freed one by one.
    os._exit(0)


def _limit_resources(request: CheckRequest) -> None:
    seconds = math.ceil(request.seconds_for(request.size))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read_content(request: CheckRequest) -> Iterator[bytes]:
    if request.packing == "parquet":
        yield from limit_growth(request.size, read_lines(sys.stdin.buffer), request.limits)
        return
    unpacker, read = Unpacker(request.packing, request.limits), 0
    while chunk := os.read(0, _PIECE):
        read += len(chunk)
        for piece in unpacker.feed(chunk):
            yield piece
            if time.process_time() > request.seconds_for(read):
                raise UnreadableError(request.too_slow)
    unpacker.finish()


if __name__ == "__main__":
    sys.exit(main())
