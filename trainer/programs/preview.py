"""`python -m trainer.programs.preview WORKDIR ROWS`: what a job would come to, counted by the training's own code.

WORKDIR is laid out as for `python -m trainer`; no weights are read. `preview.json` in it gets an `Outcome` with ROWS
training rows shown as tokens. Exit 0 done, 1 fault, 2 bad input.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from trainer.contract.preview import PREVIEW_NAME, Failed, Outcome
from trainer.contract.result import ExitCode
from trainer.kit.errors import TrainerError, as_trainer_error
from trainer.programs.shell import ENVIRONMENT


def main(arguments: list[str]) -> int:
    """Count the job in the folder that the first argument names."""
    if len(arguments) != 2 or not Path(arguments[0]).is_dir() or not arguments[1].isdecimal():
        print("usage: python -m trainer.programs.preview WORKDIR ROWS", file=sys.stderr)
        return ExitCode.BAD_INPUT
    workdir = Path(arguments[0]).resolve()
    os.environ.update(ENVIRONMENT)
    try:
        from trainer.preview.count import count

        outcome, status = Outcome(counted=count(workdir, rows=int(arguments[1]))), ExitCode.DONE
    except ModuleNotFoundError as error:
        message = f"The Python package {error.name} is not installed on this worker."
        outcome, status = _failed(TrainerError("missing_package", message, exit_code=ExitCode.FAULT))
    except Exception as error:  # noqa: BLE001 - the last line of defence: a fault becomes a sentence
        if not isinstance(error, TrainerError):
            traceback.print_exc()
        outcome, status = _failed(as_trainer_error(error))
    (workdir / PREVIEW_NAME).write_text(outcome.model_dump_json(), encoding="utf-8")
    return status


def _failed(error: TrainerError) -> tuple[Outcome, ExitCode]:
    fault = error.exit_code != ExitCode.BAD_INPUT
    failed = Failed(code=error.code, message=error.message, param=error.param, fault=fault)
    return Outcome(failed=failed), error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
