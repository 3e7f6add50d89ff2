"""The process that counts previews: kept with its imports done, since these take longer than most countings."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from service.kit.settings import Settings
from service.kit.tether import tether_command
from service.staging.child import trainer_environment
from trainer.contract.preview import LOG_NAME, PreviewCall

_log = logging.getLogger(__name__)

IDLE_SECONDS = 900.0
"""After so long without a preview the process ends, and its memory is free."""
_NICENESS = ("nice", "-n", "10")
_FEWEST_SECONDS = 0.05


class PreviewCounter:
    """A context manager around the process, which starts with the first preview. For one thread.

    `is_warm` False starts `command` anew for each preview.
    """

    def __init__(self, command: Sequence[str], *, settings: Settings, is_warm: bool = True) -> None:
        self._command = tuple(command)
        self._settings = settings
        self._is_warm = is_warm
        self._process: subprocess.Popen[bytes] | None = None
        self._last_use = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start_count(self, folder: Path, rows: int, environment: Mapping[str, str]) -> None:
        """Let the job in `folder` be counted. Raises OSError if no process can be started."""
        if not self._is_warm:
            self._process = self._start_process((*self._command, str(folder), str(rows)), folder, environment)
            return
        call = PreviewCall(workdir=str(folder), rows=rows, environment=dict(environment))
        line = call.model_dump_json().encode() + b"\n"
        self._last_use = time.monotonic()
        if self._process is not None:
            with suppress(BrokenPipeError):
                self._send_line(self._process, line)
                return
            self.kill()
        self._settings.work.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Of the process itself; each call brings its own.
        own = trainer_environment(self._settings, self._settings.work)
        self._process = self._start_process((*self._command, "--serve"), self._settings.work, own)
        self._send_line(self._process, line)

    def wait_for_count(self, seconds: float) -> bool:
        """Wait a while; return whether the counting has ended, well or not: `preview.json` says it."""
        process = self._process
        if process is None:
            return True
        if not self._is_warm:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                self.kill()  # what it may have started itself
            return self._process is None
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], max(seconds, _FEWEST_SECONDS))[0]:
            return False
        if not os.read(process.stdout.fileno(), 1 << 10):
            _log.warning("The process that counts previews has ended; the next one starts it again")
            self.kill()
        self._last_use = time.monotonic()
        return True

    def stop_if_idle(self) -> None:
        """End the process if nobody has asked for a preview for long."""
        if self._process is not None and time.monotonic() - self._last_use > IDLE_SECONDS:
            self.kill()

    def kill(self) -> None:
        """End the process and its forks."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _start_process(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        log_file = folder / LOG_NAME
        with log_file.open("ab") as log:
            return subprocess.Popen(
                tether_command((*_NICENESS, *command)),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE if self._is_warm else subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._is_warm else log,
                stderr=log,
                # A process group of its own: a kill reaches the forks too, and Ctrl-C on the worker does not.
                start_new_session=True,
            )

    def _send_line(self, process: subprocess.Popen[bytes], line: bytes) -> None:
        assert process.stdin is not None
        process.stdin.write(line)
        process.stdin.flush()
