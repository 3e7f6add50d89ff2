"""A whole context in a temporary folder: SQLite, a blob folder, the queue in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.context import Context, open_context
from service.jobs import repository
from service.kit import ids
from service.kit.db import Base
from service.kit.settings import Settings
from service.migrations.tables import TABLES
from service.queue.memory import MemoryJobQueue
from service.tables.files import FileRow
from service.tables.jobs import JobRow, JobState
from service.tables.keys import ProjectRow
from service.tables.webhooks import WebhookAttemptRow

assert TABLES
assert WebhookAttemptRow

MakeFile = Callable[..., str]
MakeJob = Callable[..., str]
GOOD_ROW = '{"messages":[{"role":"user","content":"天气怎么样?"},{"role":"assistant","content":"晴天。"}]}\n'


NEEDED = {"ppo": {"ppo": {"hyperparameters": {"reward": {"function": "length", "parameters": {"target": 5}}}}}}
"""What methods do not do without."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data=tmp_path, poll_seconds=0.02, heartbeat_seconds=1, lease_seconds=5, stop_seconds=1, retry_seconds=0
    )


@pytest.fixture
def context(settings: Settings) -> Iterator[Context]:
    context = open_context(settings)
    Base.metadata.create_all(context.db.engine)
    with context.db.write() as session:
        session.add(ProjectRow(id="proj_test", name="test"))
    yield context
    context.db.close()


@pytest.fixture
def queue() -> MemoryJobQueue:
    return MemoryJobQueue()


@pytest.fixture
def make_file(context: Context) -> MakeFile:
    """Store a dataset and its row; return the file's id."""

    def make(content: str | bytes = GOOD_ROW, filename: str = "train.jsonl", **columns: Any) -> str:
        file_id = ids.new_id(ids.FILE)
        data = content.encode() if isinstance(content, str) else content
        blob = context.storage.put(f"files/{file_id}", [data])
        with context.db.write() as session:
            session.add(
                FileRow(
                    id=file_id,
                    project_id="proj_test",
                    filename=filename,
                    purpose="fine-tune",
                    bytes=blob.bytes,
                    sha256=blob.sha256,
                    blob_key=blob.key,
                    **columns,
                )
            )
        return file_id

    return make


@pytest.fixture
def make_job(context: Context) -> MakeJob:
    """Store a job's row; return its id."""
    seeds = itertools.count()

    def make(
        training_file: str = "file-none",
        state: JobState = JobState.VALIDATING,
        *,
        method: str = "supervised",
        **columns: Any,
    ) -> str:
        job_id = columns.pop("id", None) or ids.new_id(ids.JOB)
        with context.db.write() as session:
            session.add(
                JobRow(
                    id=job_id,
                    model_name=columns.pop("model_name", f"ft:tiny:burnish::{job_id[-8:]}"),
                    project_id="proj_test",
                    state=state,
                    model="smollm2-135m-instruct",
                    base="smollm2-135m-instruct",
                    method={"type": method} | NEEDED.get(method, {}),
                    training_file=training_file,
                    seed=next(seeds),
                    **columns,
                )
            )
        return job_id

    return make


@pytest.fixture
def job_of(context: Context) -> Callable[[str], JobRow]:
    """Read a job's row."""

    def read(job_id: str) -> JobRow:
        with context.db.read() as session:
            job = repository.by_id(session, job_id)
            assert job is not None
            return job

    return read
