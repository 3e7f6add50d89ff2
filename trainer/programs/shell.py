"""What the programs share: the environment that libraries find, and how a failure ends a program."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from trainer.contract.result import ExitCode
from trainer.kit.errors import TrainerError, as_trainer_error

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "svg",
}


def hide_wandb() -> None:
    """Make wandb look as if it were not installed.

    TRL would import it, which is a sixth of a program's start, for nothing: the events have what there is to report.
    """
    # An entry of None makes an import, and the search that TRL does first, fail (Python reference, 5.3.1).
    sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]


def print_failure(failure: TrainerError) -> None:
    """Print `code: message` to stderr, which is where the service looks for it."""
    print(f"{failure.code}: {failure.message}", file=sys.stderr)


def run_program(
    work: Callable[[], ExitCode],
    report_failure: Callable[[TrainerError], None] = print_failure,
    **environment: str,
) -> ExitCode:
    """Return how `work` ended; a failure is reported, and gives its own exit code.

    `work` imports what needs torch, after `ENVIRONMENT` and `environment` are set: libraries read them when they are
    imported. An error that no TrainerError names leaves its traceback on stderr.
    """
    os.environ.update({**ENVIRONMENT, **environment})
    hide_wandb()
    try:
        return work()
    except ModuleNotFoundError as error:
        failure = _missing_package(str(error.name))
    except Exception as error:  # noqa: BLE001 - the last line of defence: a fault becomes a sentence
        if not isinstance(error, TrainerError):
            traceback.print_exc()
        failure = as_trainer_error(error)
    report_failure(failure)
    return failure.exit_code


def _missing_package(name: str) -> TrainerError:
    return TrainerError(
        "missing_package",
        f"The Python package {name} is not installed on this machine: pip install 'burnish-server[trainer]'.",
        exit_code=ExitCode.FAULT,
    )
