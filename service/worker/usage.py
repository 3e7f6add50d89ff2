"""What trainers use of the machine, counted while they run: GPUs by the second, CPU time as the kernel has it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from service.kit import metrics

_FIRST, _LAST = 11, 15
"""Where utime, stime, cutime and cstime lie in /proc/PID/stat, behind the program's name (proc(5))."""


class MachineUsage:
    """Of one trainer. `gpus` is how many it sees."""

    def __init__(self, pid: int, *, gpus: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._gpus = gpus
        self._at = time.monotonic()
        self._cpu = 0.0

    def count_usage(self) -> None:
        """Count what was used since the last tick."""
        now = time.monotonic()
        metrics.GPU_SECONDS.inc(self._gpus * (now - self._at))
        self._at = now
        cpu = self._cpu_seconds()
        metrics.CPU_SECONDS.inc(max(cpu - self._cpu, 0.0))
        self._cpu = max(cpu, self._cpu)

    def _cpu_seconds(self) -> float:
        """Return what the program and its ended children used; the last known values if it ended, or off Linux."""
        try:
            fields = self._stat.read_text().rpartition(")")[2].split()
        except OSError:
            return self._cpu
        return sum(map(int, fields[_FIRST:_LAST])) / os.sysconf("SC_CLK_TCK")
