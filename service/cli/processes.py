"""The child processes of `up`: started with a log each, watched, started again when they die, stopped in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.kit.tether import tether_command

Say = Callable[[str], None]
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
_STEADY_SECONDS = 60.0
_LOG_TAIL_BYTES = 8192


class ServiceProcess:
    """One role of the service as a process. Its output goes to a log; it gets SIGTERM if `up` dies."""

    def __init__(
        self, role: str, arguments: Sequence[str], *, logs: Path, environment: Mapping[str, str], patience: float
    ) -> None:
        self.role = role
        self.log = logs / f"{role}.log"
        self._command = [sys.executable, "-P", "-m", "service", *arguments]
        self._environment = environment
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._wait = _FIRST_WAIT
        self._started = 0.0
        self._restart_at: float | None = None

    def start(self) -> None:
        """Start the process in a session of its own: a Ctrl-C reaches only `up`, which stops all in order."""
        self.log.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as output:
            self._process = subprocess.Popen(
                tether_command(self._command, by=signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
            )
        self._started, self._restart_at = time.monotonic(), None

    def exit_status(self) -> int | None:
        """Return how the process ended, None while it runs or before its start."""
        return None if self._process is None else self._process.poll()

    def restart_if_dead(self, say: Say) -> None:
        """Start the process again if it has died: at once the first time, later after longer and longer."""
        status = self.exit_status()
        if status is None:
            return
        now = time.monotonic()
        if self._restart_at is None:
            if now - self._started > _STEADY_SECONDS:
                self._wait = _FIRST_WAIT
            self._restart_at = now + self._wait
            say(f"{self.role} {_describe_exit(status)}; starting it again in {self._wait:.0f} s (its log: {self.log})")
            self._wait = min(self._wait * 2, _LONGEST_WAIT)
        elif now >= self._restart_at:
            self.start()

    def terminate(self) -> None:
        """Ask the process to end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait_for_end(self, hurry: Callable[[], bool]) -> None:
        """Wait for the end; kill what takes too long, or at once if `hurry` says so."""
        if self._process is None:
            return
        deadline = time.monotonic() + self._patience
        while self._process.poll() is None and time.monotonic() < deadline and not hurry():
            time.sleep(0.05)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def last_words(self) -> str:
        """Return the last line of the log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self.log.stat().st_size - _LOG_TAIL_BYTES, 0))
                lines = file.read().decode("utf-8", "replace").strip().splitlines()
        except OSError:
            return "it left no log"
        return _sentence_of_line(lines[-1]) if lines else "it said nothing"


def _sentence_of_line(line: str) -> str:
    """Return what a line of a log says, whatever its form."""
    try:
        entry: Any = json.loads(line)
        return str(entry["message"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return line.removeprefix("burnish-server: ")


def stop_in_order(groups: Sequence[Sequence[ServiceProcess]], hurry: Callable[[], bool]) -> None:
    """Stop each group before the next one."""
    for group in groups:
        for child in group:
            child.terminate()
        for child in group:
            child.wait_for_end(hurry)


def _describe_exit(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    return f"was ended by {signal.Signals(-status).name}"
