"""`python -m trainer.programs.preview WORKDIR ROWS`: what a job would come to, counted by the training's own code.

WORKDIR is laid out as for `python -m trainer`; no weights are read. `preview.json` in it gets a `PreviewOutcome` with
ROWS training rows shown as tokens. Exit 0 done, 1 fault, 2 bad input.

`python -m trainer.programs.preview --serve` does so for each line of its standard input, a `PreviewCall`, in a fork
that has all imports already, and writes the fork's exit code as a line.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import tempfile
import traceback
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from trainer.contract.methods import METHODS_BY_TYPE
from trainer.contract.preview import LOG_NAME, PREVIEW_NAME, PreviewCall, PreviewFailure, PreviewOutcome
from trainer.contract.result import ExitCode
from trainer.kit.errors import TrainerError
from trainer.programs.shell import ENVIRONMENT, hide_wandb, run_program

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Count the job in the folder that the first argument names."""
    if arguments == ["--serve"]:
        return _serve_previews()
    if len(arguments) != 2 or not Path(arguments[0]).is_dir() or not arguments[1].isdecimal():
        print("usage: python -m trainer.programs.preview WORKDIR ROWS", file=sys.stderr)
        return ExitCode.BAD_INPUT
    workdir = Path(arguments[0]).resolve()

    def work() -> ExitCode:
        from trainer.preview.count import count_job

        _write_outcome(workdir, PreviewOutcome(counted=count_job(workdir, rows=int(arguments[1]))))
        return ExitCode.DONE

    return run_program(work, partial(_write_failure, workdir))


def _serve_previews() -> int:
    os.environ.update(ENVIRONMENT)
    hide_wandb()
    from trainer.engine.models import dtype

    for module in ("trainer.preview.count", *(f"trainer.recipes.{name}" for name in METHODS_BY_TYPE)):
        import_module(module)
    # A collection in a fork would copy every page that it looks at.
    gc.freeze()
    for line in sys.stdin:
        call = PreviewCall.model_validate_json(line)
        reading, writing = os.pipe()
        # No thread runs here, so that a fork has everything that this process has.
        child = os.fork()
        if child == 0:
            os.close(reading)
            _become_program(call, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            measured_times = pipe.read()
        _, status = os.waitpid(child, 0)
        if measured_times:
            dtype.remember_times(measured_times)
        # In one piece, however Python's own stream is set up: the reader takes what comes for a whole line.
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))
    return ExitCode.DONE


def _become_program(call: PreviewCall, times: int) -> NoReturn:
    """Count one job in this fork, and hand what was timed to the parent; never return."""
    status = 1
    try:
        _end_with_parent()
        with open(os.path.join(call.workdir, LOG_NAME), "ab", buffering=0) as log:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
        os.environ.clear()
        os.environ.update(call.environment)
        tempfile.tempdir = None
        status = main([call.workdir, str(call.rows)])
        from trainer.engine.models import dtype

        os.write(times, dtype.dump_times())
    except BaseException:  # noqa: BLE001 - as an interpreter would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _write_failure(workdir: Path, failure: TrainerError) -> None:
    fault = failure.exit_code != ExitCode.BAD_INPUT
    _write_outcome(
        workdir,
        PreviewOutcome(
            failed=PreviewFailure(code=failure.code, message=failure.message, param=failure.param, fault=fault)
        ),
    )


def _write_outcome(workdir: Path, outcome: PreviewOutcome) -> None:
    (workdir / PREVIEW_NAME).write_text(outcome.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
