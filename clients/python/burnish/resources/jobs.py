"""`/v1/fine_tuning/jobs`: training runs, from the order to the adapter."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx
from typing_extensions import Unpack

from burnish._download import Download, filename_of, require_absent
from burnish._pages import AsyncPage, Page
from burnish._request import Request, content, creating, parser_of, query, segment, whole
from burnish._stream import AsyncJobStream, Feed, JobStream
from burnish._upload import Progress
from burnish.errors import JobFailed
from burnish.preview_schemas import JobPreview
from burnish.schemas import Checkpoint, CreateJob, Deleted, Job, JobEvent, PageData

if TYPE_CHECKING:
    from burnish.client import AsyncBurnish, Burnish, Finish

_JOBS = "/fine_tuning/jobs"
_PREVIEW_SECONDS = 660.0
"""No server takes longer than ten minutes, which its settings allow at most."""
OnEvent = Callable[[JobEvent], object]


def _path(job_id: str, *rest: str) -> str:
    return "/".join((_JOBS, segment(job_id), *rest))


def _body(arguments: CreateJob) -> dict[str, Any]:
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


def _create(arguments: CreateJob) -> Request[Job]:
    headers = creating(arguments.get("idempotency_key"))
    return Request("POST", _JOBS, parser_of(Job), headers=headers, json=_body(arguments))


def _preview(arguments: CreateJob, rows: int | None) -> Request[JobPreview]:
    params = query(rows=rows)
    more: dict[str, Any] = {"params": params, "read_timeout": _PREVIEW_SECONDS}
    return Request("POST", f"{_JOBS}/preview", parser_of(JobPreview), json=_body(arguments), **more)


def _list(after: str | None, limit: int | None, metadata: dict[str, str] | None) -> Request[PageData[Job]]:
    filters = {f"metadata[{name}]": value for name, value in (metadata or {}).items()}
    params = query(after=after, limit=limit, **filters)
    return Request("GET", _JOBS, parser_of(PageData[Job]), params=params)


def _retrieve(job_id: str) -> Request[Job]:
    return Request("GET", _path(job_id), parser_of(Job))


def _delete(job_id: str) -> Request[Deleted]:
    return Request("DELETE", _path(job_id), parser_of(Deleted))


def _change(job_id: str, verb: Literal["cancel", "pause", "resume"]) -> Request[Job]:
    return Request("POST", _path(job_id, verb), parser_of(Job))


def _events(job_id: str, after: str | None, limit: int | None) -> Request[PageData[JobEvent]]:
    params = query(after=after, limit=limit)
    return Request("GET", _path(job_id, "events"), parser_of(PageData[JobEvent]), params=params)


def _checkpoints(job_id: str, after: str | None, limit: int | None) -> Request[PageData[Checkpoint]]:
    params = query(after=after, limit=limit)
    return Request("GET", _path(job_id, "checkpoints"), parser_of(PageData[Checkpoint]), params=params)


def _report(job_id: str) -> Request[dict[str, Any]]:
    headers = {"Accept": "application/json"}
    return Request("GET", _path(job_id, "report"), parser_of(dict[str, Any]), headers=headers)


def _report_html(job_id: str) -> Request[bytes]:
    return Request("GET", _path(job_id, "report"), content, headers={"Accept": "text/html"})


def _result(job_id: str, kind: str) -> Request[httpx.Response]:
    # Content-Digest is over the bytes as sent: no compression on the way.
    headers = {"Accept": "application/zip", "Accept-Encoding": "identity"}
    return Request("GET", _path(job_id, kind), whole, headers=headers, streamed=True)


def _download(
    job_id: str, kind: str, path: str | os.PathLike[str], extract: bool, on_progress: Progress | None
) -> tuple[Download, Finish]:
    name = filename_of(job_id, f"-{kind}.zip")
    if not extract:
        return Download(path, name=name, digest_required=True, on_progress=on_progress), Download.finish
    folder = Path(os.path.abspath(path))
    require_absent(folder)
    target = Download(folder.parent, name=name, digest_required=True, on_progress=on_progress)
    return target, partial(Download.finish_extracted, folder=folder)


def _feed(client: Burnish | AsyncBurnish, job_id: str, timeout: float | None = None) -> Feed:
    path = _path(job_id, "events")
    return Feed(job_id=job_id, path=path, base_url=client.base_url, timeout=timeout)


def _outcome(job: Job | None, raise_on_failure: bool) -> Job:
    assert job is not None
    if raise_on_failure and job.status != "succeeded":
        raise JobFailed(job=job)
    return job


class Jobs:
    """`client.jobs`, which is also `client.fine_tuning.jobs`."""

    def __init__(self, client: Burnish) -> None:
        self._client = client

    def create(self, **arguments: Unpack[CreateJob]) -> Job:
        """Order a training run. The arguments are those of `burnish.schemas.CreateJob`."""
        return self._client.send(_create(arguments))

    def preview(self, *, rows: int | None = None, **arguments: Unpack[CreateJob]) -> JobPreview:
        """Tell what such a job would come to, with `rows` of its rows as tokens; nothing is created.

        The arguments are those of `create`. Takes some seconds. Raises BadRequestError where the job would fail.
        """
        return self._client.send(_preview(arguments, rows))

    def list(
        self, *, after: str | None = None, limit: int | None = None, metadata: dict[str, str] | None = None
    ) -> Page[Job]:
        """List jobs, newest first; `metadata` keeps those that have all its pairs."""
        return Page(self._client, _list(after, limit, metadata))

    def retrieve(self, job_id: str) -> Job:
        """Return a job as it is now."""
        return self._client.send(_retrieve(job_id))

    def cancel(self, job_id: str) -> Job:
        """Stop a job. Raises ConflictError or BadRequestError where it has ended already."""
        return self._client.send(_change(job_id, "cancel"))

    def pause(self, job_id: str) -> Job:
        """Pause a job. A running one keeps a checkpoint first; until then `pause_requested` is true."""
        return self._client.send(_change(job_id, "pause"))

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on from its last checkpoint."""
        return self._client.send(_change(job_id, "resume"))

    def delete(self, job_id: str) -> Deleted:
        """Delete an ended job with its events, checkpoints, results and model. Raises ConflictError."""
        return self._client.send(_delete(job_id))

    def events(self, job_id: str, *, after: str | None = None, limit: int | None = None) -> Page[JobEvent]:
        """List a job's events, newest first; `stream` gives them as they happen."""
        return Page(self._client, _events(job_id, after, limit))

    def checkpoints(self, job_id: str, *, after: str | None = None, limit: int | None = None) -> Page[Checkpoint]:
        """List a job's checkpoints, newest first."""
        return Page(self._client, _checkpoints(job_id, after, limit))

    def stream(self, job_id: str) -> JobStream:
        """Follow a job from its first event until it has ended, over lost connections too."""
        return JobStream(self._client, _feed(self._client, job_id))

    def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        raise_on_failure: bool = True,
    ) -> Job:
        """Wait until a job has ended and return it; `on_event` gets each of its events, from the first.

        `timeout` is in seconds, looked at whenever the server sends something (at least a keep-alive).
        Raises JobFailed unless the job succeeded or `raise_on_failure` is False; WaitTimeoutError.
        """
        with JobStream(self._client, _feed(self._client, job_id, timeout)) as stream:
            for event in stream:
                if on_event:
                    on_event(event)
        return _outcome(stream.job, raise_on_failure)

    def report(self, job_id: str) -> dict[str, Any]:
        """Return a job's report: what was trained on what, and how well. Raises NotFoundError too early."""
        return self._client.send(_report(job_id))

    def report_html(self, job_id: str) -> str:
        """Return the report as one self-contained HTML page."""
        return self._client.send(_report_html(job_id)).decode("utf-8")

    def download_adapter(
        self,
        job_id: str,
        path: str | os.PathLike[str],
        *,
        extract: bool = False,
        on_progress: Progress | None = None,
    ) -> Path:
        """Download the adapter as a zip to `path` (a file or a folder), or unpacked as the folder `path`.

        The bytes are checked against the server's SHA-256, unpacked files against the archive's manifest.
        Returns the path written. Raises DownloadCorrupt, FileExistsError where the folder is not empty.
        """
        download, finish = _download(job_id, "adapter", path, extract, on_progress)
        with download as target:
            return self._client.download(_result(job_id, "adapter"), target, finish)

    def download_model(
        self,
        job_id: str,
        path: str | os.PathLike[str],
        *,
        extract: bool = False,
        on_progress: Progress | None = None,
    ) -> Path:
        """Download the whole model of a job that trained all weights; like `download_adapter` otherwise."""
        download, finish = _download(job_id, "model", path, extract, on_progress)
        with download as target:
            return self._client.download(_result(job_id, "model"), target, finish)


class AsyncJobs:
    """`client.jobs`, awaited; see `Jobs` for each method."""

    def __init__(self, client: AsyncBurnish) -> None:
        self._client = client

    async def create(self, **arguments: Unpack[CreateJob]) -> Job:
        """Order a training run."""
        return await self._client.send(_create(arguments))

    async def preview(self, *, rows: int | None = None, **arguments: Unpack[CreateJob]) -> JobPreview:
        """Tell what such a job would come to; nothing is created."""
        return await self._client.send(_preview(arguments, rows))

    async def list(
        self, *, after: str | None = None, limit: int | None = None, metadata: dict[str, str] | None = None
    ) -> AsyncPage[Job]:
        """List jobs."""
        return await AsyncPage[Job].fetch(self._client, _list(after, limit, metadata))

    async def retrieve(self, job_id: str) -> Job:
        """Return a job as it is now."""
        return await self._client.send(_retrieve(job_id))

    async def cancel(self, job_id: str) -> Job:
        """Stop a job."""
        return await self._client.send(_change(job_id, "cancel"))

    async def pause(self, job_id: str) -> Job:
        """Pause a job. A running one keeps a checkpoint first; until then `pause_requested` is true."""
        return await self._client.send(_change(job_id, "pause"))

    async def resume(self, job_id: str) -> Job:
        """Let a paused job go on from its last checkpoint."""
        return await self._client.send(_change(job_id, "resume"))

    async def delete(self, job_id: str) -> Deleted:
        """Delete an ended job with its events, checkpoints, results and model. Raises ConflictError."""
        return await self._client.send(_delete(job_id))

    async def events(self, job_id: str, *, after: str | None = None, limit: int | None = None) -> AsyncPage[JobEvent]:
        """List a job's events."""
        return await AsyncPage[JobEvent].fetch(self._client, _events(job_id, after, limit))

    async def checkpoints(
        self, job_id: str, *, after: str | None = None, limit: int | None = None
    ) -> AsyncPage[Checkpoint]:
        """List a job's checkpoints."""
        return await AsyncPage[Checkpoint].fetch(self._client, _checkpoints(job_id, after, limit))

    def stream(self, job_id: str) -> AsyncJobStream:
        """Follow a job until it has ended."""
        return AsyncJobStream(self._client, _feed(self._client, job_id))

    async def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        raise_on_failure: bool = True,
    ) -> Job:
        """Wait until a job has ended and return it."""
        async with AsyncJobStream(self._client, _feed(self._client, job_id, timeout)) as stream:
            async for event in stream:
                if on_event:
                    on_event(event)
        return _outcome(stream.job, raise_on_failure)

    async def report(self, job_id: str) -> dict[str, Any]:
        """Return a job's report."""
        return await self._client.send(_report(job_id))

    async def report_html(self, job_id: str) -> str:
        """Return the report as one self-contained HTML page."""
        return (await self._client.send(_report_html(job_id))).decode("utf-8")

    async def download_adapter(
        self,
        job_id: str,
        path: str | os.PathLike[str],
        *,
        extract: bool = False,
        on_progress: Progress | None = None,
    ) -> Path:
        """Download the adapter, as a zip or unpacked."""
        download, finish = _download(job_id, "adapter", path, extract, on_progress)
        with download as target:
            return await self._client.download(_result(job_id, "adapter"), target, finish)

    async def download_model(
        self,
        job_id: str,
        path: str | os.PathLike[str],
        *,
        extract: bool = False,
        on_progress: Progress | None = None,
    ) -> Path:
        """Download the whole model of a job that trained all weights, as a zip or unpacked."""
        download, finish = _download(job_id, "model", path, extract, on_progress)
        with download as target:
            return await self._client.download(_result(job_id, "model"), target, finish)


class FineTuning:
    """`client.fine_tuning`."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs


class AsyncFineTuning:
    """`client.fine_tuning`, awaited."""

    def __init__(self, jobs: AsyncJobs) -> None:
        self.jobs = jobs
