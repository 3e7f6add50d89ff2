"""What can end a run without a result: a stable code, one sentence for people, and who has to act on it."""

from __future__ import annotations

import errno

from trainer.contract.result import ExitCode


class TrainerError(Exception):
    """A run that cannot continue. `code` is stable, `message` says what, where and what to do."""

    def __init__(
        self, code: str, message: str, *, param: str | None = None, exit_code: ExitCode = ExitCode.BAD_INPUT
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.exit_code = exit_code


class Stopped(Exception):
    """The run was asked to stop (SIGTERM) and has reached a point where it can."""


_NO_SPACE = ("no space left on device", "pytorchstreamwriter failed", "unexpected pos ", "disk quota exceeded")
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


def as_trainer_error(error: BaseException) -> TrainerError:
    """Name a fault of the machine by its stable code; libraries report full disks and memory in words only."""
    if isinstance(error, TrainerError):
        return error
    text = str(error).lower()
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(phrase in text for phrase in _NO_SPACE):
        return _worker_fault(
            "disk_full", "The disk of the worker is full: free some space there, then start the job again."
        )
    if isinstance(error, MemoryError) or any(phrase in text for phrase in _NO_MEMORY):
        return _worker_fault(
            "out_of_memory",
            "The worker ran out of memory: lower batch_size or max_length, or use a machine with more memory.",
        )
    return _worker_fault(
        "trainer_fault",
        f"The trainer failed unexpectedly ({type(error).__name__}); the details are in the worker's log.",
    )


def is_machine_fault(error: BaseException) -> bool:
    """Return whether a library's error is about a full disk or memory, whatever it was doing."""
    return as_trainer_error(error).code in ("disk_full", "out_of_memory")


def _worker_fault(code: str, message: str) -> TrainerError:
    return TrainerError(code, message, exit_code=ExitCode.FAULT)
