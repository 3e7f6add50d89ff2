"""A child process of a worker: own session, tied to the worker's life, no credentials, its output in a bounded log."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import trainer
from service.kit.settings import Settings
from service.kit.tether import tether_command

log = logging.getLogger(__name__)

KILL_SECONDS = 5.0
"""How long a cancelled child may take to end by itself."""
TAIL_BYTES = 8 << 10
_LOG_BYTES = 1 << 20
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
_HUB = ("HF_TOKEN", "HF_ENDPOINT", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE")


def trainer_environment(settings: Settings, scratch: Path, *, hub: bool = False, gpu: bool = True) -> dict[str, str]:
    """Return the whole environment of a trainer: built from a short list, so that no secret slips through.

    With `hub`, the child may download from the Hugging Face hub, with the worker's token for it; without `gpu` it sees
    no GPU.
    """
    names = _PASSED_ON + (_HUB if hub else ())
    threads = settings.trainer_threads or os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1
    variables = {name: os.environ[name] for name in names if name in os.environ}
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    return (
        variables
        | hidden
        | {
            "PYTHONPATH": str(Path(trainer.__file__).resolve().parents[1]),
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
            "TMPDIR": str(scratch),
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "0" if hub else "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
    )


class WorkerChild:
    """A running child. Start it from the main thread (see `kit/tether.py`)."""

    def __init__(self, command: Sequence[str], *, folder: Path, log_file: Path, environment: Mapping[str, str]) -> None:
        self.asked_to_stop = False
        self._log_file = log_file
        self._process = subprocess.Popen(
            tether_command(command),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A process group of its own: a kill reaches the trainer's own children too, and Ctrl-C on the worker does
            # not.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._copier = threading.Thread(
            target=_copy_output, args=(self._process.stdout, log_file), name=f"log-{self._process.pid}", daemon=True
        )
        self._copier.start()

    @property
    def pid(self) -> int:
        """The child's process id, and that of its process group."""
        return self._process.pid

    def wait(self, seconds: float) -> int | None:
        """Wait for the end and return the exit status (negative: a signal), or None if it still runs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the child alone: it writes a checkpoint, and needs its own children for that."""
        self.asked_to_stop = True
        # Not the group: data loaders must outlive the signal until the checkpoint is written.
        self._process.terminate()

    def kill(self) -> int:
        """End the whole process group, by force after a few seconds; return the exit status."""
        self._signal_group(signal.SIGTERM)
        self.wait(KILL_SECONDS)
        return self.close()

    def close(self) -> int:
        """Kill what is left of the process group, finish the log, and return the exit status."""
        # Before the wait: grandchildren that outlive the trainer would hold GPU memory and the log's pipe.
        self._signal_group(signal.SIGKILL)
        status = self._process.wait()
        # Bounded: a grandchild that left the group may keep the pipe open.
        self._copier.join(KILL_SECONDS)
        return status

    def tail(self) -> str:
        """Return the end of the child's output."""
        return read_tail(self._log_file)

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def read_tail(log_file: Path) -> str:
    """Return the end of a log, nothing if there is none."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _copy_output(source: BinaryIO, target: Path) -> None:
    """Drain the pipe whatever happens: a child blocks once the pipe is full."""
    copied_bytes = 0
    with source:
        while chunk := os.read(source.fileno(), 1 << 16):
            try:
                if copied_bytes + len(chunk) > _LOG_BYTES:
                    # Two files of bounded size: a trainer that prints without end does not fill the disk.
                    target.replace(target.with_suffix(".1"))
                    copied_bytes = 0
                with target.open("ab") as file:
                    copied_bytes += file.write(chunk)
            except OSError as error:
                log.warning("The trainer's log cannot be written: %s", error.strerror)
                copied_bytes = 0
