"""How an attempt at a job can end without a result. `run.py` turns each into the job's next state.

AttemptEnd
├── JobFailedForGood  the user must change the job: it ends, as another attempt would fail the same way
├── AttemptFailed     our fault or the machine's: the job is tried again while its budget lasts
│   └── AttemptCrashed  the trainer just ended: counts only as long as the job gets no further
├── JobPaused         its owner paused the job: it waits at its last checkpoint
├── JobTimedOut       it has run for as long as it may: the job ends
├── WorkerStopping    this worker is being stopped: the job returns to the queue, uncounted
└── LeaseLost         the job is no longer ours, or may not be: nothing more is written
"""

from __future__ import annotations

from service.jobs.lifecycle import JobFailureReason


class AttemptEnd(Exception):
    """The root of this package's errors."""


class _WithReason(AttemptEnd):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.error = JobFailureReason(code=code, message=message, param=param)


class JobFailedForGood(_WithReason):
    """The job can never succeed as it is; `error` is the reason for its owner."""


class AttemptFailed(_WithReason):
    """This attempt failed; another may succeed."""


class AttemptCrashed(AttemptFailed):
    """The trainer ended without a reason of its own."""


class JobPaused(AttemptEnd):
    """The job's owner asked to pause it."""


class JobTimedOut(AttemptEnd):
    """The job has used up its timeout."""


class WorkerStopping(AttemptEnd):
    """The worker was asked to stop."""


class LeaseLost(AttemptEnd):
    """The job was cancelled or taken over, or the lease could not be renewed in time."""
