"""How long a job would run: by what earlier jobs of this service took, and by an assumption if there are none."""

from __future__ import annotations

from statistics import median

from sqlalchemy.orm import Session

from service.jobs import repository as jobs
from service.previews.schemas import TimeEstimate
from service.tables.jobs import JobRow
from trainer.contract.preview import CountedJob

_LOOKED_AT = 200
_USED = 20


def estimate_time(session: Session, job: JobRow, job_counts: CountedJob) -> TimeEstimate:
    """Return the running time, from claim to result, of a job that was counted."""
    kind = job.method["type"]
    alike = [
        (tokens, training, running)
        for method, tokens, training, running in jobs.training_speeds(session, job.base, limit=_LOOKED_AT)
        if method["type"] == kind and tokens and training
    ][:_USED]
    if alike:
        speed = median(tokens / training for tokens, training, _ in alike)
        overhead = median(max(0.0, running - training) for _, training, running in alike)
        return TimeEstimate(
            seconds=round(job_counts.tokens / speed + overhead, 1),
            tokens_per_second=round(speed, 1),
            earlier_jobs=len(alike),
            method=(
                f"The median of the last {len(alike)} job(s) of the method {kind} on {job.base} that succeeded here: "
                f"{speed:,.0f} tokens a second while training, and {overhead:,.0f} s besides for loading, evaluations "
                "and the report."
            ),
        )
    assumed_speed = job_counts.speed
    if assumed_speed.tokens_per_second is None:
        return TimeEstimate(
            seconds=None,
            tokens_per_second=None,
            earlier_jobs=0,
            method=f"No job of the method {kind} on {job.base} has succeeded here yet. {assumed_speed.method}",
        )
    return TimeEstimate(
        seconds=round(job_counts.tokens / assumed_speed.tokens_per_second, 1),
        tokens_per_second=round(assumed_speed.tokens_per_second, 1),
        earlier_jobs=0,
        method=(
            f"No job of the method {kind} on {job.base} has succeeded here yet, so this is an assumption, for the "
            f"training steps alone. {assumed_speed.method}"
        ),
    )
