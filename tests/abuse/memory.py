"""The peak resident memory of the service's processes, with those that they start."""

from __future__ import annotations

import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

LIMIT_MIB = 400.0
"""The most for a process of the service that holds no torch."""
_EVERY_SECONDS = 0.2
_DANGER_MIB = 3072.0
"""A process of the service that comes to this is killed: the machine must outlive the suite."""
WITH_TORCH = ("engine", "worker's children")
"""The roles that are shown, and may take what a model takes."""


class Peaks:
    """Looks at the processes several times a second, by role; `worker's children` are trainers and the like."""

    def __init__(self, processes: Callable[[], dict[str, int | None]]) -> None:
        self._processes = processes
        self.mib: dict[str, float] = defaultdict(float)
        self.killed: list[str] = []

    def bound(self) -> dict[str, float]:
        """Return the peaks of those that must stay below the limit."""
        return {role: peak for role, peak in self.mib.items() if role not in WITH_TORCH}

    def look(self) -> None:
        """Note the peaks up to now."""
        for role, pid in self._processes().items():
            if pid is None:
                continue
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                self._note(role, process)
                for child in process.children(recursive=True):
                    self._note({"worker": "worker's children", "engine": "engine"}.get(role, role), child)

    def _note(self, role: str, process: psutil.Process) -> None:
        with suppress(psutil.Error, OSError):
            peak = _peak_mib(process)
            self.mib[role] = max(self.mib[role], peak)
            if role not in WITH_TORCH and resident_mib(process.pid) > _DANGER_MIB:
                self.killed.append(role)
                process.send_signal(signal.SIGKILL)


@contextmanager
def watched(processes: Callable[[], dict[str, int | None]]) -> Generator[Peaks]:
    """Watch the memory of processes, by role, from now to the end of the block."""
    peaks, done = Peaks(processes), threading.Event()
    for pid in processes().values():
        _forget_peak(pid)

    def look_on() -> None:
        while not done.wait(_EVERY_SECONDS):
            peaks.look()

    thread = threading.Thread(target=look_on, name="memory", daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()
        peaks.look()


def resident_mib(pid: int) -> float:
    """Return a process's resident memory now. Raises psutil.Error."""
    return psutil.Process(pid).memory_info().rss / 2**20


def _forget_peak(pid: int | None) -> None:
    """Have the kernel count the peak from now on, if it lets us: then no peak between two looks is missed."""
    with suppress(OSError, psutil.Error):
        if pid is not None:
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak_mib(process: psutil.Process) -> float:
    if os.path.exists("/proc/self/status"):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return 0.0  # a process that has ended and is not waited for yet
    return resident_mib(process.pid)
