"""Checks of what was uploaded: small content here, everything else in a process of its own."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from types import TracebackType
from typing import BinaryIO, Self, cast

from burnish.datasets import DatasetSummary, Limits, PackedChecker, Packing, Problem
from burnish.datasets.packing import MAGIC_BYTES, packing_of, unpack_chunks
from service.context import Context
from service.files.check_process import CheckRequest, Paths, check_content, load_summary
from service.files.content import copy_to_temporary, limits_of, packing_of_row
from service.files.process import start_reader
from service.kit.settings import Settings
from service.tables.files import FileRow

SMALL_BYTES = 128 << 10
"""Files up to this size that hold no more than this are checked in the caller's thread, without a process: a process
takes longer to start than they to be checked, whatever is in them."""
_LOOK_SECONDS = 0.5
_PIPE_BYTES = 1 << 20

Needed = Callable[[], bool]


class CheckAbandoned(Exception):
    """The check was ended because its outcome is no longer needed."""


def check_stored(context: Context, file: FileRow, request: CheckRequest, needed: Needed) -> DatasetSummary:
    """Check a stored file. `needed` is called at least every half second: it returns whether to continue.

    Raises CheckAbandoned, and the blob store's errors; StorageFull if there is no room for a copy of Parquet.
    """
    if not needed():
        raise CheckAbandoned
    chunks = context.storage.read(file.blob_key)
    # Parquet is read from its end: it needs a file, while everything else is checked as a stream.
    if request.packing == "parquet":
        with copy_to_temporary(chunks) as copy, CheckProcess(request, needed, source=copy) as process:
            return process.finish()
    if file.bytes > SMALL_BYTES:
        with closing(chunks), CheckProcess(request, needed) as process:
            for chunk in chunks:
                # The process has its verdict, such as too many bad lines: the rest need not be fetched.
                if not process.send(chunk):
                    break
            return process.finish()
    with closing(chunks):
        data = b"".join(chunks)
    # A small file may unpack to gigabytes: then it is checked again, in a process with limits.
    return check_small(request, data) or _check_held(request, data, needed)


def check_small(request: CheckRequest, data: bytes) -> DatasetSummary | None:
    """Check a small file at once; None if it holds too much for that."""

    def limit_content() -> Iterator[bytes]:
        size = 0
        for piece in unpack_chunks(request.packing, (data,), request.limits):
            size += len(piece)
            if size > SMALL_BYTES:
                raise _GrownTooLarge
            yield piece

    try:
        return check_content(request, limit_content())
    except _GrownTooLarge:
        return None


def stored_request(settings: Settings, file: FileRow, row_format: str, needs: Paths, references: Paths) -> CheckRequest:
    """Return the request to check a stored file; `row_format` is a name in `burnish.datasets.ROW_FORMATS`."""
    request = _make_check_request(
        settings, file.filename, packing_of_row(file), size=file.bytes, format_name=row_format
    )
    return replace(request, needs=needs, references=references)


class UploadCheck:
    """Checks a file as it is sent, packed or not, for any method: of Parquet only that it is whole.

    As soon as `needs_process` says so, call `start_process` before the next `feed`; until then the bytes are only
    kept. Close it at the end.
    """

    def __init__(self, settings: Settings, filename: str) -> None:
        self._settings, self._filename = settings, filename
        self._held: bytes | None = b""
        self._parquet: PackedChecker | None = None
        self._process: CheckProcess | None = None
        self._summary: DatasetSummary | None = None
        self.packing: Packing = "none"
        """Known when four bytes have come."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self._process is not None:
            self._process.send(chunk)
        elif self._parquet is not None:
            self._parquet.feed(chunk)
        else:
            assert self._held is not None
            self._held += chunk
            self._recognize_packing(self._held)

    def needs_process(self, *, at_end: bool = False) -> bool:
        """Return whether the check continues in a process; at the end, a small file is checked to find out."""
        if self._held is None:
            return False
        if len(self._held) > SMALL_BYTES:
            return True
        if at_end and self._summary is None:
            self._summary = check_small(self._make_request(), self._held)
        return at_end and self._summary is None

    def start_process(self) -> None:
        """Continue the check in a process."""
        held_bytes, self._held = self._held, None
        self._process = CheckProcess(self._make_request(), lambda: True)
        self._process.send(held_bytes or b"")

    def finish(self) -> DatasetSummary:
        """Return the outcome; call it once."""
        if self.needs_process(at_end=True):
            self.start_process()
        if self._process is not None:
            return self._process.finish()
        if self._parquet is not None:
            return self._parquet.finish()
        assert self._summary is not None
        return self._summary

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.close()

    def _recognize_packing(self, start: bytes) -> None:
        if len(start) < MAGIC_BYTES:
            return
        self.packing = packing_of(start)
        if self.packing == "parquet":
            self._parquet, self._held = PackedChecker(self._filename), None
            self._parquet.feed(start)

    def _make_request(self) -> CheckRequest:
        if self._held is not None:
            self.packing = packing_of(self._held)
        return _make_check_request(self._settings, self._filename, self.packing, size=self._settings.max_file_bytes)


class CheckProcess:
    """One process that checks; leaving the block ends it. `source` is a file for Parquet, else `send` the bytes.

    `needed` is called often, and should be cheap; see `NeededUntil`.
    """

    def __init__(self, request: CheckRequest, needed: Needed, *, source: BinaryIO | None = None) -> None:
        self._asked, self._needed = request, needed
        self._pipe: int | None = None
        with ExitStack() as files:
            request_file, self._outcome, self._errors = (
                cast("BinaryIO", files.enter_context(tempfile.TemporaryFile())) for _ in range(3)
            )
            # By a file descriptor and not by arguments, which every user of the machine can list.
            request_file.write(request.dump())
            request_file.seek(0)
            self._process = start_reader(
                "service.files.check_process",
                str(request_file.fileno()),
                stdin=source or subprocess.PIPE,
                stdout=self._outcome,
                stderr=self._errors,
                inherited_descriptors=(request_file.fileno(),),
                niceness=request.niceness,
            )
            self._files = files.pop_all()
        if self._process.stdin is not None:
            self._pipe = self._process.stdin.fileno()
            # Not blocking: a check that hangs must not hang the thread that feeds it.
            _prepare_pipe(self._pipe)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, chunk: bytes) -> bool:
        """Give the process the next bytes; False if it takes no more, because its outcome stands.

        Raises CheckAbandoned.
        """
        self._require_need()
        unsent = memoryview(chunk)
        while unsent:
            if self._pipe is None:
                return False
            try:
                unsent = unsent[os.write(self._pipe, unsent) :]
            except BlockingIOError:
                self._wait_for_pipe(self._pipe)
            # The process ended early, by a verdict or by a limit; `finish` finds out which.
            except BrokenPipeError:
                self._close_pipe()
        return True

    def finish(self) -> DatasetSummary:
        """Wait for the outcome. Raises CheckAbandoned."""
        self._close_pipe()
        while True:
            try:
                status = self._process.wait(_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self._require_need()
        if status == 0:
            self._outcome.seek(0)
            return load_summary(self._outcome.read())
        return DatasetSummary(0, (Problem(0, self._explain_status(status)),))

    def close(self) -> None:
        """End the process, if it has not ended."""
        # Waited for, so that no zombie stays and its memory is free before the next check.
        self._process.kill()
        self._close_pipe()
        self._process.wait()
        self._files.close()

    def _explain_status(self, status: int) -> str:
        # RLIMIT_CPU ended it: the file takes more processor time than its size allows.
        if status == -signal.SIGXCPU:
            return self._asked.too_slow
        if status < 0 and self._asked.packing == "parquet":
            return "the Parquet file breaks its reader: it is damaged, or made for that; write it again"
        if status < 0:
            return "the file breaks its check: it is damaged, or made for that; write it again"
        self._errors.seek(0)
        raise RuntimeError(f"a check of a file failed: {self._errors.read()[-4000:].decode('utf-8', 'replace')}")

    def _wait_for_pipe(self, pipe: int) -> None:
        poll = select.poll()
        poll.register(pipe, select.POLLOUT)
        poll.poll(_LOOK_SECONDS * 1000)
        self._require_need()

    def _require_need(self) -> None:
        if not self._needed():
            raise CheckAbandoned

    def _close_pipe(self) -> None:
        self._pipe = None
        if self._process.stdin is not None:
            self._process.stdin.close()


class NeededUntil:
    """Calls `look` at most once a second, and remembers a False; after `seconds` the answer is False."""

    def __init__(self, look: Needed, *, seconds: float | None = None) -> None:
        self._look = look
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._next = 0.0
        self._needed = True

    def __call__(self) -> bool:
        """Return whether the outcome is still needed."""
        now = time.monotonic()
        if self._needed and now >= self._next:
            self._next = now + 1
            self._needed = self._look() and (self._deadline is None or now < self._deadline)
        return self._needed


class _GrownTooLarge(Exception):
    pass


def _check_held(request: CheckRequest, data: bytes, needed: Needed) -> DatasetSummary:
    with CheckProcess(request, needed) as process:
        process.send(data)
        return process.finish()


def _make_check_request(
    settings: Settings,
    filename: str,
    packing: Packing,
    *,
    size: int,
    format_name: str | None = None,
) -> CheckRequest:
    limits: Limits = limits_of(settings)
    return CheckRequest(
        filename=filename,
        packing=packing,
        size=size,
        format_name=format_name,
        needs=(),
        references=(),
        limits=limits,
        max_line_bytes=settings.max_line_bytes,
        max_rows=settings.max_file_rows,
        seconds_per_gib=settings.check_seconds_per_gib,
    )


def _prepare_pipe(pipe: int) -> None:
    os.set_blocking(pipe, False)
    with suppress(OSError, AttributeError):  # Linux alone has it, and an unprivileged user's pipes are bounded together
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
