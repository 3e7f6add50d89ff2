"""`python -m trainer WORKDIR`: exit 0 done, 1 fault, 2 bad input, 3 stopped on request (SIGTERM)."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from trainer.contract.events import Error
from trainer.contract.result import ExitCode
from trainer.kit.event_sink import EventSink
from trainer.kit.stop import StopFlag
from trainer.programs.shell import ENVIRONMENT


def main(arguments: list[str]) -> int:
    """Run the job in the folder that the only argument names."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m trainer WORKDIR (a folder that exists)", file=sys.stderr)
        return ExitCode.BAD_INPUT
    workdir = Path(arguments[0]).resolve()
    stop = StopFlag()
    signal.signal(signal.SIGTERM, stop.on_signal)
    os.environ.update(ENVIRONMENT)
    try:
        from trainer.run import run
    except ModuleNotFoundError as error:
        return _missing_package(workdir, str(error.name))
    return run(workdir, stop)


def _missing_package(workdir: Path, name: str) -> int:
    message = f"The Python package {name} is not installed on this worker: pip install 'burnish-server[trainer]'."
    print(message, file=sys.stderr)
    sink = EventSink(workdir)
    sink.emit(Error(code="missing_package", message=message))
    sink.close()
    return ExitCode.FAULT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
