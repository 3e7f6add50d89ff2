"""What `up` looks at before it starts anything, each with a sentence for what is wrong."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from service.cli.errors import CommandFailed

LEAST_FREE_BYTES = 1 << 30
TRAINER_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors", "gguf")
_LOCK_NAME = "up.lock"


def check_port(host: str, port: int, *, shared: bool = False) -> None:
    """Raise CommandFailed unless a server can listen there, beside others that share the port if it does."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise CommandFailed(f"--host {host} is not an address of this machine: {error}.") from error
    with socket.socket(family, kind, protocol) as probe:
        # As the server does: a port is free even if its last connections still linger.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind(address)
            if not shared:  # a probe that listened would be given connections
                probe.listen()
        except OSError as error:
            raise CommandFailed(_port_problem(host, port, error)) from error


def check_packages(packages: tuple[str, ...] = TRAINER_PACKAGES) -> None:
    """Raise CommandFailed unless the trainer's packages are installed. It looks for them and imports none."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise CommandFailed(
            f"Training needs Python packages that are not installed: {', '.join(missing)}. "
            "Install them with: pip install 'burnish-server[trainer]'"
        )


def prepare_folder(folder: Path) -> None:
    """Make the data folder, for its owner alone. Raises CommandFailed if that is not possible."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _close_to_others(folder)
        probe = folder / f".writable-{os.getpid()}"
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise CommandFailed(f"The data folder {folder} cannot be used: {reason}. Choose another by --data.") from error


def _close_to_others(folder: Path) -> None:
    """Take from everybody but the owner what earlier releases, or a copy, let them have of the folder."""
    folder.chmod(0o700)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            with suppress(FileNotFoundError, PermissionError):  # gone meanwhile, or another user's own
                mode = os.lstat(path).st_mode
                if mode & 0o077 and not stat.S_ISLNK(mode):
                    os.chmod(path, stat.S_IMODE(mode) & 0o700)


def low_space(folder: Path, least: int = LEAST_FREE_BYTES) -> str | None:
    """Return a warning where little room is left for blobs, bases and checkpoints."""
    free = shutil.disk_usage(folder).free
    if free >= least:
        return None
    return f"Only {free >> 20} MiB are free in {folder}; jobs may fail for lack of space."


@contextmanager
def lock_data_folder(folder: Path) -> Generator[None]:
    """Hold the data folder for one `up`; the kernel lets go however the process ends. Raises CommandFailed."""
    descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = file.read().strip() or "?"
            raise CommandFailed(
                f"Another `burnish-server up` (process {owner}) uses the data folder {folder}. "
                "Stop it, or choose another folder by --data."
            ) from error
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def _port_problem(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use: choose another with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} is not allowed to this user: choose one from 1024 up with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: choose another with --host."
    return f"Port {port} on {host} cannot be used: {error.strerror}."
