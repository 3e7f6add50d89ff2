"""`python -m trainer.programs.preview WORKDIR ROWS`: what a job would come to, counted by the training's own code.

WORKDIR is laid out as for `python -m trainer`; no weights are read. `preview.json` in it gets a `PreviewOutcome` with
ROWS training rows shown as tokens. Exit 0 done, 1 fault, 2 bad input.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from trainer.contract.preview import PREVIEW_NAME, PreviewFailure, PreviewOutcome
from trainer.contract.result import ExitCode
from trainer.kit.errors import TrainerError
from trainer.programs.shell import run_program


def main(arguments: list[str]) -> int:
    """Count the job in the folder that the first argument names."""
    if len(arguments) != 2 or not Path(arguments[0]).is_dir() or not arguments[1].isdecimal():
        print("usage: python -m trainer.programs.preview WORKDIR ROWS", file=sys.stderr)
        return ExitCode.BAD_INPUT
    workdir = Path(arguments[0]).resolve()

    def work() -> ExitCode:
        from trainer.preview.count import count_job

        _write_outcome(workdir, PreviewOutcome(counted=count_job(workdir, rows=int(arguments[1]))))
        return ExitCode.DONE

    return run_program(work, partial(_write_failure, workdir))


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
