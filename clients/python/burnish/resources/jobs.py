"""`/v1/fine_tuning/jobs`: training runs, from the order to the adapter."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Unpack

from burnish._pages import AsyncPage, Page
from burnish._stream import AsyncJobStream, JobStream
from burnish._transport import AsyncTransport, Transport
from burnish._upload import Progress
from burnish.job_arguments import CreateJob
from burnish.resources import job_requests as requests
from burnish.schemas import Checkpoint, Deleted, Job, JobEvent

if TYPE_CHECKING:
    from burnish.preview_schemas import JobPreview

OnEvent = Callable[[JobEvent], object]


class Jobs:
    """`client.jobs`, which is also `client.fine_tuning.jobs`."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def create(self, **arguments: Unpack[CreateJob]) -> Job:
        """Order a training run. The arguments are those of `burnish.job_arguments.CreateJob`."""
        return self._client.send(requests.create_job_request(arguments))

    def create_and_wait(
        self,
        *,
        wait_timeout: float | None = None,
        on_event: OnEvent | None = None,
        raise_on_failure: bool = True,
        **arguments: Unpack[CreateJob],
    ) -> Job:
        """Order a training run and wait until it has ended: `create`, then `wait`, with the arguments of both.

        `wait_timeout` is in seconds (`timeout` is the job's own, which the server sees to). Called again with the
        same `idempotency_key`, as after a WaitTimeoutError or a restart, it waits for the job of the first call.
        """
        job = self.create(**arguments)
        return self.wait(job.id, timeout=wait_timeout, on_event=on_event, raise_on_failure=raise_on_failure)

    def preview(
        self, *, rows: int | None = None, wait: int | None = None, **arguments: Unpack[CreateJob]
    ) -> JobPreview:
        """Tell what such a job would come to, with `rows` of its rows as tokens; nothing is created.

        The arguments are those of `create`. Takes some seconds, and minutes for the first use of a base: with `wait`,
        no longer than so many seconds, and the same call goes on waiting. Raises BadRequestError if the job would
        fail, InternalServerError (`preview_timeout`) with what it is busy with if the answer is not there in time.
        """
        return self._client.send(requests.preview_job_request(arguments, rows, wait))

    def list(
        self, *, after: str | None = None, limit: int | None = None, metadata: dict[str, str] | None = None
    ) -> Page[Job]:
        """List jobs, newest first; `metadata` keeps those that have all its pairs."""
        return Page(self._client, requests.list_jobs_request(after, limit, metadata))

    def retrieve(self, job_id: str) -> Job:
        """Return a job as it is now."""
        return self._client.send(requests.retrieve_job_request(job_id))

    def cancel(self, job_id: str) -> Job:
        """Stop a job. Raises ConflictError or BadRequestError if it has ended already."""
        return self._client.send(requests.change_job_request(job_id, "cancel"))

    def pause(self, job_id: str) -> Job:
        """Pause a job. A running one keeps a checkpoint first; until then `pause_requested` is true."""
        return self._client.send(requests.change_job_request(job_id, "pause"))

    def resume(self, job_id: str) -> Job:
        """Continue a paused job from its last checkpoint."""
        return self._client.send(requests.change_job_request(job_id, "resume"))

    def delete(self, job_id: str) -> Deleted:
        """Delete an ended job with its events, checkpoints, results and model. Raises ConflictError."""
        return self._client.send(requests.delete_job_request(job_id))

    def events(self, job_id: str, *, after: str | None = None, limit: int | None = None) -> Page[JobEvent]:
        """List a job's events, newest first; `stream` gives them as they happen."""
        return Page(self._client, requests.list_events_request(job_id, after, limit))

    def checkpoints(self, job_id: str, *, after: str | None = None, limit: int | None = None) -> Page[Checkpoint]:
        """List a job's checkpoints, newest first."""
        return Page(self._client, requests.list_checkpoints_request(job_id, after, limit))

    def stream(self, job_id: str) -> JobStream:
        """Follow a job from its first event until it has ended, over lost connections too."""
        return JobStream(self._client, requests.make_event_feed(self._client, job_id))

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
        with JobStream(self._client, requests.make_event_feed(self._client, job_id, timeout)) as stream:
            for event in stream:
                if on_event:
                    on_event(event)
        return requests.check_outcome(stream.job, raise_on_failure)

    def report(self, job_id: str) -> dict[str, Any]:
        """Return a job's report: what was trained on what, and how well. Raises NotFoundError too early."""
        return self._client.send(requests.report_request(job_id))

    def report_html(self, job_id: str) -> str:
        """Return the report as one self-contained HTML page."""
        return self._client.send(requests.report_html_request(job_id)).decode("utf-8")

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
        Returns the path written. Raises DownloadCorrupt, FileExistsError if the folder is not empty.
        """
        download, finish = requests.prepare_result_download(job_id, "adapter", path, extract, on_progress)
        with download as target:
            return self._client.download(requests.download_result_request(job_id, "adapter"), target, finish)

    def download_model(
        self,
        job_id: str,
        path: str | os.PathLike[str],
        *,
        extract: bool = False,
        on_progress: Progress | None = None,
    ) -> Path:
        """Download the whole model of a job that trained all weights; like `download_adapter` otherwise."""
        download, finish = requests.prepare_result_download(job_id, "model", path, extract, on_progress)
        with download as target:
            return self._client.download(requests.download_result_request(job_id, "model"), target, finish)


class AsyncJobs:
    """`client.jobs`, awaited; see `Jobs` for each method."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def create(self, **arguments: Unpack[CreateJob]) -> Job:
        """Order a training run."""
        return await self._client.send(requests.create_job_request(arguments))

    async def create_and_wait(
        self,
        *,
        wait_timeout: float | None = None,
        on_event: OnEvent | None = None,
        raise_on_failure: bool = True,
        **arguments: Unpack[CreateJob],
    ) -> Job:
        """Order a training run and wait until it has ended."""
        job = await self.create(**arguments)
        return await self.wait(job.id, timeout=wait_timeout, on_event=on_event, raise_on_failure=raise_on_failure)

    async def preview(
        self, *, rows: int | None = None, wait: int | None = None, **arguments: Unpack[CreateJob]
    ) -> JobPreview:
        """Tell what such a job would come to; nothing is created."""
        return await self._client.send(requests.preview_job_request(arguments, rows, wait))

    async def list(
        self, *, after: str | None = None, limit: int | None = None, metadata: dict[str, str] | None = None
    ) -> AsyncPage[Job]:
        """List the project's jobs, newest first."""
        return await AsyncPage[Job].fetch(self._client, requests.list_jobs_request(after, limit, metadata))

    async def retrieve(self, job_id: str) -> Job:
        """Return a job as it is now."""
        return await self._client.send(requests.retrieve_job_request(job_id))

    async def cancel(self, job_id: str) -> Job:
        """Stop a job for good."""
        return await self._client.send(requests.change_job_request(job_id, "cancel"))

    async def pause(self, job_id: str) -> Job:
        """Pause a job. A running one keeps a checkpoint first; until then `pause_requested` is true."""
        return await self._client.send(requests.change_job_request(job_id, "pause"))

    async def resume(self, job_id: str) -> Job:
        """Continue a paused job from its last checkpoint."""
        return await self._client.send(requests.change_job_request(job_id, "resume"))

    async def delete(self, job_id: str) -> Deleted:
        """Delete an ended job with its events, checkpoints, results and model. Raises ConflictError."""
        return await self._client.send(requests.delete_job_request(job_id))

    async def events(self, job_id: str, *, after: str | None = None, limit: int | None = None) -> AsyncPage[JobEvent]:
        """List a job's events."""
        return await AsyncPage[JobEvent].fetch(self._client, requests.list_events_request(job_id, after, limit))

    async def checkpoints(
        self, job_id: str, *, after: str | None = None, limit: int | None = None
    ) -> AsyncPage[Checkpoint]:
        """List a job's checkpoints."""
        return await AsyncPage[Checkpoint].fetch(self._client, requests.list_checkpoints_request(job_id, after, limit))

    def stream(self, job_id: str) -> AsyncJobStream:
        """Follow a job until it has ended."""
        return AsyncJobStream(self._client, requests.make_event_feed(self._client, job_id))

    async def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        raise_on_failure: bool = True,
    ) -> Job:
        """Wait until a job has ended and return it."""
        async with AsyncJobStream(self._client, requests.make_event_feed(self._client, job_id, timeout)) as stream:
            async for event in stream:
                if on_event:
                    on_event(event)
        return requests.check_outcome(stream.job, raise_on_failure)

    async def report(self, job_id: str) -> dict[str, Any]:
        """Return a job's report."""
        return await self._client.send(requests.report_request(job_id))

    async def report_html(self, job_id: str) -> str:
        """Return the report as one self-contained HTML page."""
        return (await self._client.send(requests.report_html_request(job_id))).decode("utf-8")

    async def download_adapter(
        self,
        job_id: str,
        path: str | os.PathLike[str],
        *,
        extract: bool = False,
        on_progress: Progress | None = None,
    ) -> Path:
        """Download the adapter, as a zip or unpacked."""
        download, finish = requests.prepare_result_download(job_id, "adapter", path, extract, on_progress)
        with download as target:
            return await self._client.download(requests.download_result_request(job_id, "adapter"), target, finish)

    async def download_model(
        self,
        job_id: str,
        path: str | os.PathLike[str],
        *,
        extract: bool = False,
        on_progress: Progress | None = None,
    ) -> Path:
        """Download the whole model of a job that trained all weights, as a zip or unpacked."""
        download, finish = requests.prepare_result_download(job_id, "model", path, extract, on_progress)
        with download as target:
            return await self._client.download(requests.download_result_request(job_id, "model"), target, finish)


class FineTuning:
    """`client.fine_tuning.jobs`, the place that OpenAI's client gives to `client.jobs`."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs


class AsyncFineTuning:
    """`client.fine_tuning`, to be awaited."""

    def __init__(self, jobs: AsyncJobs) -> None:
        self.jobs = jobs
