"""`python -m trainer WORKDIR`: exit 0 done, 1 fault, 2 bad input, 3 stopped on request (SIGTERM)."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path

from trainer.contract.events import ErrorEvent
from trainer.contract.result import ExitCode
from trainer.kit.errors import TrainerError
from trainer.kit.event_sink import EventSink
from trainer.kit.stop import StopFlag
from trainer.programs.shell import print_failure, run_program


def main(arguments: list[str]) -> int:
    """Run the job in the folder that the only argument names."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m trainer WORKDIR (a folder that exists)", file=sys.stderr)
        return ExitCode.BAD_INPUT
    workdir = Path(arguments[0]).resolve()
    stop = StopFlag()
    signal.signal(signal.SIGTERM, stop.on_signal)

    def work() -> ExitCode:
        from trainer.run import run_training_job

        return run_training_job(workdir, stop)

    return run_program(work, partial(_emit_failure, workdir))


def _emit_failure(workdir: Path, failure: TrainerError) -> None:
    print_failure(failure)
    sink = EventSink(workdir)
    sink.emit(ErrorEvent(code=failure.code, message=failure.message, param=failure.param))
    sink.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
