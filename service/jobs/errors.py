"""Errors of jobs: unknown ones, wrong states, and results that do not exist."""

from __future__ import annotations

from collections.abc import Sequence

from service.kit import metrics
from service.kit.errors import Conflict, NotFound, PermissionDenied
from service.tables.jobs import JobState


class JobNotFound(NotFound):
    """No job of this project has the id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"No such fine-tuning job: {job_id[:64]}", param="id")


class JobHasEnded(Conflict):
    """The job has ended, so it cannot be cancelled, paused or resumed."""

    def __init__(self, job_id: str, status: str, transition: str) -> None:
        super().__init__(f"Job {job_id} is already {status}; only a job that has not ended can be {transition}.")


class JobNotPaused(Conflict):
    """The job is not paused, so there is nothing to resume."""

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"Job {job_id} is not paused, it is {status}; only a paused job can be resumed.")


class JobRunsStill(Conflict):
    """The job has not ended, so it cannot be deleted."""

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"Job {job_id} is {status}; cancel it first, then it can be deleted.", code="job_not_ended")


class JobInUse(Conflict):
    """Other jobs need what this one left."""

    def __init__(self, job_id: str, users: Sequence[str], *, foreign: int = 0) -> None:
        """`users` are jobs of the same project; of other projects there are `foreign` ones."""
        user_names = ", ".join(users[:5]) + (" and others" if len(users) > 5 else "")
        foreign_users = "jobs of other projects that it is shared with" if foreign else ""
        user_names = " and ".join(part for part in (user_names, foreign_users) if part)
        super().__init__(
            f"Job {job_id} cannot be deleted: {user_names} need its result. Wait for them, or delete them first.",
            code="job_in_use",
        )


class ParentFailed(Conflict):
    """The job that the model would have come from ended without one."""

    def __init__(self, job_id: str, state: str, *, param: str, shared_as: str | None = None) -> None:
        """`shared_as` is the model's name in another project that it is shared with."""
        job = f"Job {job_id}" if shared_as is None else f"The job of {shared_as}"
        outcome = "was cancelled" if state == JobState.CANCELLED else "failed"
        super().__init__(
            f"{job} {outcome}, so it has no model: name another, or one of its checkpoints.",
            param=param,
            code="parent_failed",
        )


class ArtifactNotReady(Conflict):
    """The job has no such result, at least not yet."""

    def __init__(self, job_id: str, transition: str, status: str) -> None:
        super().__init__(
            f"Job {job_id} has no {transition}: its status is {status}. Results exist once a job has succeeded.",
            code="not_ready",
        )


class ResultsExpired(NotFound):
    """The job's results were kept for as long as it asked, and deleted then."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"The results of job {job_id} were deleted when their time was over (expires_after.artifacts).",
            param="id",
            code="expired",
        )


class OtherResult(Conflict):
    """The job produced a whole model but an adapter was requested, or the other way round."""

    def __init__(self, job_id: str, requested_kind: str, actual_kind: str) -> None:
        why = "trains all weights" if actual_kind == "model" else "trains an adapter"
        super().__init__(
            f"Job {job_id} {why}, so it leaves no {requested_kind}: get its {actual_kind} instead, under "
            f"/v1/fine_tuning/jobs/{job_id}/{actual_kind}.",
            code=f"no_{requested_kind}",
        )


class DownloadBlocked(PermissionDenied):
    """The weights go back to a model that its owner shared without letting them out."""

    code = "download_blocked"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"The weights of {model} cannot be downloaded or exported: they go back to a model that another project "
            "shared with adapter_download blocked. Chat with the model, or start further jobs from it.",
            param="model",
        )


class StaleLease(Conflict):
    """A worker wrote with a lease that another has taken over, or for a job that has ended."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"The lease on job {job_id} is no longer this worker's.", code="stale_lease")
        metrics.STALE_WRITES.inc()
