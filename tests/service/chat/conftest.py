"""The API and a real engine on loopback, with the tiny base and results of jobs in the blob store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy import select

from service.chat.protocol import PATH
from service.context import Context
from service.engine.app import create_engine_app
from service.engine.backend import Backend
from service.engine.local import LocalEngine
from service.engine.speaker import Speaker
from service.engine.weights import EngineWeights
from service.jobs.model_names import compose_model_name
from service.kit import ids
from service.tables.jobs import JobCheckpointRow, JobRow, JobState
from service.tables.keys import ProjectRow
from service.tables.models import FineTunedModelRow
from tests.fixtures.adapters import make_adapter
from tests.fixtures.preloaded import start_preloaded
from tests.fixtures.processes import free_port
from tests.fixtures.service import RunningApi, make_context, run_api, write_catalog
from trainer.contract.result import MANIFEST_NAME

PROJECT = "desk"


@dataclass
class ChatWorld:
    """A running API and engine; models are made by `result`."""

    api: RunningApi
    context: Context
    base: Path
    folder: Path

    def client(self, project: str = PROJECT) -> httpx.Client:
        return self.api.client(project)

    def adapter(self, seed: int) -> Path:
        folder = self.folder / f"adapter-{seed}"
        return folder if folder.exists() else make_adapter(self.base, folder, seed=seed)

    def result(
        self, seed: int, *, state: JobState = JobState.SUCCEEDED, step: int | None = None, **columns: Any
    ) -> tuple[str, str]:
        """Make a job whose result, or checkpoint, is a random adapter; return the job's id and the model's name."""
        self.client().close()  # its key makes the project
        job_id = ids.new_id(ids.JOB)
        prefix = f"jobs/{job_id}/attempt-1/{'output/adapter' if step is None else f'checkpoints/step-{step}'}"
        manifest = self._store(self.adapter(seed), prefix)
        with self.context.db.write() as session:
            project = session.scalars(select(ProjectRow).where(ProjectRow.name == PROJECT)).one()
            given: dict[str, Any] = {
                "model": "tiny",
                "base": "tiny",
                "method": {"type": "supervised", "supervised": {"hyperparameters": {}}},
                "training_file": "file-x",
                "seed": 1,
                "suffix": f"客服{seed}" if columns.pop("chinese", False) else f"s{seed}",
            }
            values = given | columns
            organization = self.context.settings.organization
            name = compose_model_name(values["base"], organization=organization, suffix=values["suffix"], job_id=job_id)
            job = JobRow(id=job_id, model_name=name, project_id=project.id, state=state, **values)
            session.add(job)
            session.flush()
            if step is not None:
                session.add(
                    JobCheckpointRow(
                        id=ids.new_id(ids.CHECKPOINT),
                        job_id=job_id,
                        step=step,
                        metrics={},
                        blob_prefix=prefix,
                        manifest_sha256=manifest,
                    )
                )
                return job_id, f"{name}:ckpt-step-{step}"
            kind = "reward" if job.method["type"] == "reward" else "adapter"
            model = FineTunedModelRow(
                id=name,
                project_id=project.id,
                base="tiny",
                kind=kind,
                job_id=job_id,
                blob_prefix=prefix,
                manifest_sha256=manifest,
            )
            session.add(model)
        return job_id, name

    def _store(self, folder: Path, prefix: str) -> str:
        for path in folder.iterdir():
            stored = self.context.storage.put(f"{prefix}/{path.name}", [path.read_bytes()])
            if path.name == MANIFEST_NAME:
                manifest = stored.sha256
        return manifest


@contextmanager
def serving(app: Any) -> Generator[str, None, None]:
    """Serve an application by uvicorn in a thread; give its URL."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


def make_local_engine(context: Context, folder: Path, stop: threading.Event) -> LocalEngine:
    """Make an engine with the real program for chat, preloaded."""
    program = start_preloaded().command
    speaker = Speaker(context.settings, folder=folder / "engine", command=program("trainer.programs.chat"))
    weights = EngineWeights(context, stop, prepare_command=program("trainer.programs.prepare"))
    return LocalEngine(context.settings, weights, speaker)


@contextmanager
def running_chat(
    folder: Path, base: Path, backend: Callable[[Context], Backend] | None = None, **settings: Any
) -> Generator[ChatWorld, None, None]:
    """Serve engine and API. The engine has a context of its own, as in another process."""
    catalog = write_catalog(folder, base)
    engine_context = make_context(folder, catalog=catalog, **settings)
    stop = threading.Event()

    def local() -> Backend:
        return make_local_engine(engine_context, folder, stop)

    open_backend = local if backend is None else partial(backend, engine_context)
    app = create_engine_app(engine_context.hmac_key, engine_context.settings, open_backend)
    with serving(app) as url:
        context = make_context(folder, catalog=catalog, engine_url=url, **settings)
        with run_api(context) as api:
            assert httpx.post(url + PATH, json={}).status_code in (401, 422)
            yield ChatWorld(api, context, base, folder)
    engine_context.db.close()


def warm_up(world: ChatWorld) -> None:
    """Load the base once: on a busy machine that takes longer than a test waits for an answer."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    with world.client() as client:
        warm = client.post("/chat/completions", json=body, timeout=300)
        assert warm.status_code == 200, warm.text


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Generator[ChatWorld, None, None]:
    with running_chat(tmp_path_factory.mktemp("chat"), tiny_base, engine_waiting=1, engine_max_tokens=16) as made:
        warm_up(made)
        yield made


@pytest.fixture
def client(world: ChatWorld) -> Generator[httpx.Client, None, None]:
    with world.client() as made:
        yield made
