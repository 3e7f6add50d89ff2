"""A lock among this machine's workers that neither a dead nor a frozen holder keeps."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from service.staging.hold import WorkHold

_SIGNS = 10
"""How often a holder shows a sign of life in the time after which others give up waiting for one."""


@contextmanager
def only_one(path: Path, hold: WorkHold, *, poll_seconds: float, patience: float) -> Generator[None]:
    """Hold the lock for the length of the block.

    The kernel frees it when its holder dies. A holder that is frozen shows no sign of life: after `patience` seconds
    without one the next takes its place, so that what is done under the lock must bear being done twice at once.

    Raises what `hold.check_all` raises, while it waits.
    """
    descriptor = _take_lock(path, hold, poll_seconds, patience)
    work_ended = threading.Event()
    alive = threading.Thread(target=_show_life, args=(descriptor, work_ended, patience / _SIGNS), daemon=True)
    alive.start()
    try:
        yield
    finally:
        # Joined before the close: `utime` on a number that was reused would touch another file.
        work_ended.set()
        alive.join()
        os.close(descriptor)


def _show_life(descriptor: int, work_ended: threading.Event, seconds: float) -> None:
    while not work_ended.wait(seconds):
        # By descriptor: after a takeover the path leads to the new holder's file.
        os.utime(descriptor)


def _take_lock(path: Path, hold: WorkHold, poll_seconds: float, patience: float) -> int:
    last_life, since = (0, 0), time.monotonic()
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        # A lock counts only if the path still leads to its inode: the file may have been replaced between the open and
        # the lock.
        if _try_lock(descriptor) and _inode_at(path) == os.fstat(descriptor).st_ino:
            return descriptor
        state = os.fstat(descriptor)
        os.close(descriptor)
        # Only whether it changes matters, never its distance from this machine's clock: the folder may be on another
        # server.
        life = (state.st_ino, state.st_mtime_ns)
        if life != last_life:
            last_life, since = life, time.monotonic()  # by this clock alone: clocks on the wall jump
        elif time.monotonic() - since > patience and _inode_at(path) == state.st_ino:
            path.unlink(missing_ok=True)  # its holder keeps a lock that nobody looks at any more
        # A paused or cancelled job must not wait for another worker's download.
        hold.check_all()
        hold.pause(poll_seconds)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _inode_at(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
