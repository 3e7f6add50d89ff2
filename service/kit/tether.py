"""Run a command that dies with the process that started it, by PR_SET_PDEATHSIG (prctl(2), Linux only).

The signal comes when the THREAD that made the child ends: start tethered children from the main thread.
A small program of its own, because code between fork and exec of a process with threads may deadlock.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tether_command(command: Sequence[str], *, by: signal.Signals = signal.SIGKILL) -> list[str]:
    """Return the command line that runs `command`, with the same pid, until this process is gone; then it gets `by`."""
    # By a program that becomes the command: `preexec_fn` would run Python between fork and exec, which is not safe
    # with threads.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(by)), *command]


def main(arguments: Sequence[str]) -> None:
    """Tie this process to its parent and become the command. `arguments`: parent's pid, signal, command."""
    parent, number, command = int(arguments[0]), int(arguments[1]), list(arguments[2:])
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have died before the prctl: then no signal ever comes.
    if os.getppid() != parent:
        sys.exit("the process that started this one has gone")
    os.execvp(command[0], command)  # noqa: S606 - no shell: the command is a list that our own code built


if __name__ == "__main__":
    main(sys.argv[1:])
