"""The requests of `/v1/fine_tuning/jobs`, the same for both kinds of client."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx

from burnish._download import Download, filename_of, require_absent, target_path
from burnish._request import (
    Request,
    idempotency_headers,
    parser_of,
    path_segment,
    query_params,
    response_content,
    whole_response,
)
from burnish._stream import Feed
from burnish._transport import CommonTransport, Finish
from burnish._upload import Progress
from burnish.errors import JobFailed
from burnish.job_arguments import CreateJob
from burnish.schemas import Checkpoint, Deleted, Job, JobEvent, PageData

if TYPE_CHECKING:
    from burnish.preview_schemas import JobPreview

_JOBS = "/fine_tuning/jobs"
_PREVIEW_SECONDS = 660.0
"""No server takes longer than ten minutes, which its settings allow at most."""


def _job_path(job_id: str, *rest: str) -> str:
    return "/".join((_JOBS, path_segment(job_id), *rest))


def _job_body(arguments: CreateJob) -> dict[str, Any]:
    body: dict[str, Any] = {
        name: value
        for name, value in arguments.items()
        if value is not None and name not in ("method", "hyperparameters", "idempotency_key")
    }
    method, hyperparameters = arguments.get("method"), arguments.get("hyperparameters")
    if isinstance(method, dict):
        body["method"] = method
    elif method is not None or hyperparameters is not None:
        kind = method or "supervised"
        body["method"] = {"type": kind, kind: {"hyperparameters": hyperparameters or {}}}
    return body


def create_job_request(arguments: CreateJob) -> Request[Job]:
    """Order a training run."""
    headers = idempotency_headers(arguments.get("idempotency_key"))
    return Request("POST", _JOBS, parser_of(Job), headers=headers, json=_job_body(arguments))


def preview_job_request(arguments: CreateJob, rows: int | None, wait: int | None = None) -> Request[JobPreview]:
    """Ask what a job would come to, with `rows` as tokens, and for how many seconds to wait."""
    from burnish.preview_schemas import JobPreview

    params = query_params(rows=rows, wait=wait)
    more: dict[str, Any] = {"params": params, "read_timeout": _PREVIEW_SECONDS}
    return Request("POST", f"{_JOBS}/preview", parser_of(JobPreview), json=_job_body(arguments), **more)


def list_jobs_request(after: str | None, limit: int | None, metadata: dict[str, str] | None) -> Request[PageData[Job]]:
    """List jobs, those that have all pairs of `metadata`."""
    filters = {f"metadata[{name}]": value for name, value in (metadata or {}).items()}
    params = query_params(after=after, limit=limit, **filters)
    return Request("GET", _JOBS, parser_of(PageData[Job]), params=params)


def retrieve_job_request(job_id: str) -> Request[Job]:
    """Ask for a job."""
    return Request("GET", _job_path(job_id), parser_of(Job))


def delete_job_request(job_id: str) -> Request[Deleted]:
    """Delete an ended job."""
    return Request("DELETE", _job_path(job_id), parser_of(Deleted))


def change_job_request(job_id: str, verb: Literal["cancel", "pause", "resume"]) -> Request[Job]:
    """Cancel, pause or resume a job."""
    return Request("POST", _job_path(job_id, verb), parser_of(Job))


def list_events_request(job_id: str, after: str | None, limit: int | None) -> Request[PageData[JobEvent]]:
    """List a job's events."""
    params = query_params(after=after, limit=limit)
    return Request("GET", _job_path(job_id, "events"), parser_of(PageData[JobEvent]), params=params)


def list_checkpoints_request(job_id: str, after: str | None, limit: int | None) -> Request[PageData[Checkpoint]]:
    """List a job's checkpoints."""
    params = query_params(after=after, limit=limit)
    return Request("GET", _job_path(job_id, "checkpoints"), parser_of(PageData[Checkpoint]), params=params)


def report_request(job_id: str) -> Request[dict[str, Any]]:
    """Ask for a job's report as data."""
    headers = {"Accept": "application/json"}
    return Request("GET", _job_path(job_id, "report"), parser_of(dict[str, Any]), headers=headers)


def report_html_request(job_id: str) -> Request[bytes]:
    """Ask for a job's report as a page."""
    return Request("GET", _job_path(job_id, "report"), response_content, headers={"Accept": "text/html"})


def download_result_request(job_id: str, kind: str) -> Request[httpx.Response]:
    """Ask for what came of a job: its `adapter` or `model`, as a zip."""
    # Content-Digest is over the bytes as sent: no compression on the way.
    headers = {"Accept": "application/zip", "Accept-Encoding": "identity"}
    return Request("GET", _job_path(job_id, kind), whole_response, headers=headers, streamed=True)


def prepare_result_download(
    job_id: str, kind: str, path: str | os.PathLike[str], extract: bool, on_progress: Progress | None
) -> tuple[Download, Finish]:
    """Return where a result goes, and how its download is brought to an end. Raises FileExistsError."""
    if extract:
        folder = Path(os.path.abspath(path))
        require_absent(folder)
        return Download(folder, digest_required=True, on_progress=on_progress), Download.finish_extracted
    file = target_path(path, filename_of(job_id, f"-{kind}.zip"))
    return Download(file, digest_required=True, on_progress=on_progress), Download.finish


def make_event_feed(client: CommonTransport, job_id: str, timeout: float | None = None) -> Feed:
    """Return what follows a job's events; `timeout` in seconds."""
    path = _job_path(job_id, "events")
    return Feed(job_id=job_id, path=path, base_url=client.base_url, timeout=timeout)


def check_outcome(job: Job | None, raise_on_failure: bool) -> Job:
    """Return an ended job. Raises JobFailed unless it succeeded or `raise_on_failure` is False."""
    assert job is not None
    if raise_on_failure and job.status != "succeeded":
        raise JobFailed(job=job)
    return job
