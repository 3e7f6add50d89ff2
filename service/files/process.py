"""Processes that read what others uploaded: without secrets, tied to this process, and easily ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import burnish.datasets
import service
from service.kit.tether import tether_command

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
# A tethered child dies with the thread that started it (see `kit/tether.py`). The thread of this pool lives as long as
# the process does; those that serve requests end when they have been idle.
_starter = ThreadPoolExecutor(1, thread_name_prefix="start processes")


def start_reader(
    module: str,
    *arguments: str,
    stdin: IO[bytes] | int,
    stdout: IO[bytes] | int,
    stderr: IO[bytes],
    inherited_descriptors: Sequence[int] = (),
    niceness: int = 0,
) -> subprocess.Popen[bytes]:
    """Start `python -m module` in a session of its own; of the open files, it has those named. Raises OSError.

    The niceness holds from the start: to start Python and load its modules costs more than most files do.
    """
    nice = ["nice", "-n", str(niceness)] if niceness else []
    return _starter.submit(
        subprocess.Popen[bytes],
        [*nice, *tether_command([sys.executable, "-m", module, *arguments])],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=reader_environment(),
        pass_fds=tuple(inherited_descriptors),
        start_new_session=True,
        bufsize=0,
    ).result()


def reader_environment() -> dict[str, str]:
    """Return the whole environment of such a process: no secret of the service is in it."""
    homes = (Path(service.__file__).resolve().parents[1], Path(burnish.datasets.__file__).resolve().parents[2])
    variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return variables | {
        "PYTHONPATH": os.pathsep.join(map(str, homes)),
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
    }
