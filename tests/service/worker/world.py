"""What the worker's tests share: a real database and blob store, a job to run, ways to see what became of it."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import case, select, update

from service.context import Context, open_context
from service.jobs import lifecycle, repository
from service.jobs.model_names import compose_model_name
from service.kit import ids
from service.kit.db import Base
from service.kit.outbox import OutboxRow, Topic
from service.kit.settings import Settings
from service.migrations.tables import TABLES
from service.tables.files import FileRow
from service.tables.jobs import JobArtifactRow, JobEventRow, JobRow, JobState
from service.tables.keys import ProjectRow
from service.worker.run import WorkerRuntime, run_job

HERE = Path(__file__).parent
ROWS = '{"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好"}]}\n' * 2
PROJECT = ids.new_id(ids.PROJECT)


def trainer_command(mode: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / "scripted_trainer.py"), mode)


def prepare_command() -> tuple[str, ...]:
    return (sys.executable, str(HERE / "scripted_prepare.py"))


def eventually(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class World:
    """One data folder with everything in it."""

    def __init__(self, folder: Path, *, base: Path | None = None, **options: Any) -> None:
        if base is None:
            base = folder / "tiny"
            base.mkdir(parents=True)
            (base / "config.json").write_text("{}")
        catalog = folder / "catalog.json"
        models = [
            {"id": "tiny", "source": {"kind": "folder", "path": str(base)}},
            {"id": "absent", "source": {"kind": "folder", "path": str(folder / "absent")}},
        ]
        catalog.write_text(json.dumps({"models": models}))
        fast = {
            "heartbeat_seconds": 0.2,
            "poll_seconds": 0.03,
            "lease_seconds": 20,
            "stop_seconds": 20,
            "retry_seconds": 0,
        }
        self.settings = Settings(data=folder / "data", catalog=catalog, **(fast | options))
        self.context: Context = open_context(self.settings)
        self.db, self.storage = self.context.db, self.context.storage
        self.stop = threading.Event()
        assert TABLES
        self.settings.data.mkdir(exist_ok=True)
        Base.metadata.create_all(self.db.engine)
        with self.db.write() as session:
            session.add(ProjectRow(id=PROJECT, name="tests"))

    def file(self, content: str | bytes = ROWS, filename: str = "训练.jsonl", **columns: Any) -> str:
        data, file_id = content.encode() if isinstance(content, str) else content, ids.new_id(ids.FILE)
        self.storage.put(f"files/{file_id}", [data])
        with self.db.write() as session:
            session.add(
                FileRow(
                    id=file_id,
                    project_id=PROJECT,
                    filename=filename,
                    purpose="fine-tune",
                    bytes=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    blob_key=f"files/{file_id}",
                    **columns,
                )
            )
        return file_id

    def job(self, *, model: str = "tiny", n_epochs: int = 3, **columns: Any) -> str:
        job_id = ids.new_id(ids.JOB)
        with self.db.write() as session:
            given: dict[str, Any] = {
                "model": model,
                "base": model,
                "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": n_epochs}}},
                "training_file": self.file(),
                "validation_file": self.file(),
                "suffix": "demo",
                "seed": 7,
            }
            given |= columns
            given["model_name"] = compose_model_name(
                given["base"], organization=self.settings.organization, suffix=given["suffix"], job_id=job_id
            )
            session.add(JobRow(id=job_id, project_id=PROJECT, state=JobState.VALIDATING, **given))
            session.flush()
            lifecycle.queue_up(session, job_id)
        return job_id

    def runtime(self, mode: str, *, owner: str = "worker-1") -> WorkerRuntime:
        return WorkerRuntime(
            context=self.context,
            owner=owner,
            stop=self.stop,
            trainer_command=trainer_command(mode),
            prepare_command=prepare_command(),
        )

    def put_first(self, job_id: str) -> None:
        with self.db.write() as session:
            session.execute(update(JobRow).values(priority=case((JobRow.id == job_id, 100), else_=0)))

    def run(self, job_id: str, mode: str = "succeed") -> None:
        self.put_first(job_id)
        run_job(self.runtime(mode), job_id)

    def row(self, job_id: str) -> JobRow:
        with self.db.read() as session:
            job = repository.by_id(session, job_id)
            assert job is not None
            return job

    def events(self, job_id: str) -> Sequence[JobEventRow]:
        with self.db.read() as session:
            query = select(JobEventRow).where(JobEventRow.job_id == job_id).order_by(JobEventRow.seq)
            return session.scalars(query).all()

    def messages(self, job_id: str) -> list[str]:
        return [event.message for event in self.events(job_id)]

    def artifacts(self, job_id: str) -> dict[str, JobArtifactRow]:
        with self.db.read() as session:
            found = session.scalars(select(JobArtifactRow).where(JobArtifactRow.job_id == job_id)).all()
            return {artifact.name: artifact for artifact in found}

    def outbox(self, topic: Topic) -> list[dict[str, Any]]:
        with self.db.read() as session:
            rows = session.scalars(select(OutboxRow).where(OutboxRow.topic == topic)).all()
            return [row.payload for row in rows]

    def blobs(self, prefix: str) -> list[str]:
        return sorted(blob.key for blob in self.storage.list(prefix))

    def read(self, key: str) -> bytes:
        return b"".join(self.storage.read(key))

    def has_step(self, job_id: str, step: int) -> bool:
        return any(event.once_key == f"step:{step}" for event in self.events(job_id))

    def meanwhile(self, condition: Callable[[], bool], action: Callable[[], object]) -> threading.Thread:
        """Start a thread that does something as soon as a condition holds."""

        def watch() -> None:
            eventually(condition)
            action()

        thread = threading.Thread(target=watch)
        thread.start()
        return thread

    def close(self) -> None:
        self.db.close()
