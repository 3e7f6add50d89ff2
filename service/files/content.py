"""What a stored file holds, unpacked as a stream: JSON lines or text, whatever it was uploaded as."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO, cast

from burnish.datasets import Limits, Packing
from burnish.datasets.errors import UnreadableError
from burnish.datasets.packing import limit_growth, unpack_chunks
from service.files.parquet_reader import UNREADABLE
from service.files.process import start_reader
from service.kit.settings import Settings
from service.storage.base import CHUNK_SIZE
from service.storage.errors import StorageFull
from service.tables.files import FileRow

_PIECE = 1 << 18


def limits_of(settings: Settings) -> Limits:
    """Return how far an uploaded file may grow when it is unpacked."""
    return Limits(max_bytes=settings.max_unpacked_bytes, max_ratio=settings.max_unpacked_ratio)


def read_local(source: BinaryIO, packing: Packing, limits: Limits) -> Iterator[bytes]:
    """Yield what an open file of this machine holds. Raises UnreadableError."""
    if packing == "parquet":
        return _read_parquet(source, limits)
    return unpack_chunks(packing, iter(lambda: source.read(CHUNK_SIZE), b""), limits)


def packing_of_row(file: FileRow) -> Packing:
    """Return a file's packing, as it was recognised at its upload."""
    return cast("Packing", file.packing)


@contextmanager
def copy_to_temporary(chunks: Generator[bytes, None, None]) -> Generator[BinaryIO]:
    """Copy a blob into a temporary file: Parquet can only be read from a file of this machine. Raises StorageFull."""
    with _translate_no_space(), tempfile.TemporaryFile(prefix="burnish-") as copy:
        with closing(chunks):
            for chunk in chunks:
                copy.write(chunk)
        copy.flush()
        copy.seek(0)
        yield cast("BinaryIO", copy)


@contextmanager
def _translate_no_space() -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull(
            f"There is no room in {tempfile.gettempdir()} to read a Parquet file: free some, or set TMPDIR."
        ) from error


def _read_parquet(source: BinaryIO, limits: Limits) -> Iterator[bytes]:
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    with (
        tempfile.TemporaryFile() as error_output,
        _run_parquet_reader(source, cast("BinaryIO", error_output)) as process,
    ):
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        yield from limit_growth(size, iter(lambda: os.read(pipe, _PIECE), b""), limits)
        status = process.wait()
        if status == UNREADABLE:
            error_output.seek(0)
            raise UnreadableError(error_output.read(2000).decode("utf-8", "replace"))
        if status:
            raise UnreadableError("the Parquet file breaks its reader: it is damaged, or made for that; write it again")


@contextmanager
def _run_parquet_reader(source: BinaryIO, errors: BinaryIO) -> Generator[subprocess.Popen[bytes]]:
    process = start_reader("service.files.parquet_reader", stdin=source, stdout=subprocess.PIPE, stderr=errors)
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        process.wait()
