"""How a job is followed in a terminal, in a pipe, and by programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from burnish.cli.output import print_json, print_line
from burnish.errors import JobFailed

if TYPE_CHECKING:
    from burnish.client import Burnish
    from burnish.schemas import Job


def watch_job(client: Burnish, job_id: str, as_json: bool) -> None:
    """Show a job's events until it has ended; as JSON, one a line and the job last. Raises JobFailed."""
    job = _print_events(client, job_id) if as_json else _show_progress(client, job_id)
    if job.status != "succeeded":
        raise JobFailed(job=job)
    if not as_json:
        tokens = f", {job.trained_tokens:,} tokens trained" if job.trained_tokens else ""
        print_line(f"{job.id} succeeded: {job.fine_tuned_model}{tokens}")


def _print_events(client: Burnish, job_id: str) -> Job:
    with client.jobs.stream(job_id) as stream:
        for event in stream:
            print_json(event, compact=True)
    assert stream.job is not None
    print_json(stream.job, compact=True)
    return stream.job


def _show_progress(client: Burnish, job_id: str) -> Job:
    from burnish.progress import JobProgress

    with JobProgress() as progress:
        return client.jobs.wait(job_id, on_event=progress, raise_on_failure=False)
