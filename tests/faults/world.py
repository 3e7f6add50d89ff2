"""A cluster of real processes on real servers, each behind a proxy, kept alive as a supervisor would."""

from __future__ import annotations

import contextlib
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from safetensors.numpy import save_file
from sqlalchemy import create_engine, func, select, text

from service.context import Context, open_context
from service.jobs.states import TERMINAL
from service.keys.service import create_key
from service.kit.settings import Settings
from service.migrations import upgrade_schema
from service.queue.embedded import EmbeddedValkey
from service.tables.jobs import JobEventRow, JobRow, JobState
from tests.faults import ledger
from tests.faults.process import VARIABLE, Options
from tests.faults.proxy import FaultProxy
from tests.faults.scale import PATIENCE, wait_until
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.processes import clean_environment, free_port, jsonl, rows
from tests.fixtures.seaweedfs import S3Server
from tests.fixtures.service import write_catalog
from tests.fixtures.supervised import REPOSITORY, ServiceProcess
from tests.fixtures.valkey import run_valkey

PREPARE = (sys.executable, str(REPOSITORY / "tests/service/worker/scripted_prepare.py"))
INSPECT = (sys.executable, str(REPOSITORY / "tests/service/worker/scripted_inspect.py"))
TRAINER_MODULE = "tests.faults.trainer_program"
QUICK = {
    "heartbeat_seconds": "0.5",
    "lease_seconds": "4",
    "poll_seconds": "0.2",
    "stop_seconds": "10",
    "retry_seconds": "0",
}
"""Leases that run out in seconds, for tests that wait for it."""
PLAIN = {"poll_seconds": "0.2", "stop_seconds": "10", "retry_seconds": "0"}
"""The heartbeat and lease of production."""
RESTART_SECONDS = 0.3


@dataclass
class World:
    """The running cluster. `context` is this process's own view of its data, beside the proxies."""

    folder: Path
    settings: Settings
    context: Context
    processes: dict[str, ServiceProcess]
    proxies: dict[str, FaultProxy]
    valkey: EmbeddedValkey
    url: str
    key: str
    project_id: str
    record: Path
    """The ledger of all steps."""
    answers: list[int] = field(default_factory=list)
    """The status of every answer of the API."""
    submitted: list[str] = field(default_factory=list)
    """All jobs."""
    file_id: str = ""

    @property
    def workers(self) -> list[ServiceProcess]:
        """The workers."""
        return [process for role, process in self.processes.items() if role.startswith("worker")]

    def request(self, method: str, path: str, *, seconds: float = 300, **rest: Any) -> httpx.Response:
        """Ask the API, again and again where it is away or says that the service is."""
        headers = {"Authorization": f"Bearer {self.key}", "Idempotency-Key": secrets.token_hex(16)}
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = httpx.request(method, f"{self.url}{path}", headers=headers, timeout=30, **rest)
            except httpx.TransportError as error:
                said: object = error
            else:
                self.answers.append(answer.status_code)
                said = answer.text
                if answer.status_code not in (409, 500, 503):
                    assert answer.status_code == 200, answer.text
                    return answer
            assert time.monotonic() < deadline, f"{method} {path}: {said}"
            time.sleep(0.2)

    def submit(self, count: int, *, steps: int = 10, slowness: int = 1, **body: Any) -> list[str]:
        """Create jobs and return their ids. A step takes `slowness` times as long as the world's steps do."""
        if not self.file_id:
            data = jsonl(rows(4))
            files = {"file": ("训练.jsonl", data)}
            self.file_id = self.request("POST", "/files", files=files, data={"purpose": "fine-tune"}).json()["id"]
        asked_for = {"n_epochs": steps, "batch_size": 4, "gradient_accumulation_steps": slowness}
        method = {"type": "supervised", "supervised": {"hyperparameters": asked_for}}
        asked = {"model": "tiny", "training_file": self.file_id, "method": method} | body
        made = [self.request("POST", "/fine_tuning/jobs", json=asked).json()["id"] for _ in range(count)]
        self.submitted += made
        return made

    def job(self, job_id: str) -> JobRow:
        """Return a job as SQL has it now."""
        with self.context.db.read() as session:
            return session.scalars(select(JobRow).where(JobRow.id == job_id)).one()

    def states(self, job_ids: Sequence[str]) -> list[str]:
        """Return where the jobs stand."""
        with self.context.db.read() as session:
            return list(session.scalars(select(JobRow.state).where(JobRow.id.in_(job_ids))))

    def ended(self, job_ids: Sequence[str]) -> bool:
        """Return whether all jobs have ended."""
        return all(state in TERMINAL for state in self.states(job_ids))

    def wait(self, job_ids: Sequence[str], *, seconds: float = PATIENCE / 3) -> float:
        """Wait until all jobs have ended and return how long that took."""
        began = time.monotonic()
        try:
            wait_until(lambda: self.ended(job_ids), what="the end of all jobs", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.states(job_ids)}\n{self.log()}") from error
        return time.monotonic() - began

    def wait_for_steps(self, job_ids: Sequence[str], count: int) -> None:
        """Wait until every one of the jobs has shown `count` steps."""

        def shown() -> bool:
            query = select(JobEventRow.job_id, func.count()).where(
                JobEventRow.job_id.in_(job_ids), JobEventRow.type == "metrics"
            )
            with self.context.db.read() as session:
                found = {row[0]: row[1] for row in session.execute(query.group_by(JobEventRow.job_id))}
            return all(found.get(job_id, 0) >= count for job_id in job_ids)

        wait_until(shown, what=f"{count} steps of {job_ids}: {self.states(job_ids)}")

    def entries(self, job_ids: Sequence[str]) -> list[ledger.Entry]:
        """Return what the trainers of these jobs did."""
        return [entry for entry in ledger.read(self.record) if entry.job in job_ids]

    def trainers(self) -> list[psutil.Process]:
        """Return the trainers that run."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if any(str(self.settings.work) in word for word in line):
                    found.append(process)
        return found

    def log(self) -> str:
        """Return the ends of all logs, for the message of a failed test."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(self.folder.glob("*.log"))
        )


@dataclass(frozen=True)
class Servers:
    """The servers that all worlds of a run share; each world has a database and a prefix of its own."""

    postgres: PostgresServer | None = None
    s3: S3Server | None = None


@contextmanager
def running_world(
    folder: Path,
    servers: Servers | None = None,
    *,
    workers: int = 2,
    pace: dict[str, str] = QUICK,
    step_seconds: float = 0.05,
    base: Path | None = None,
    real_trainer: bool = False,
    options: dict[str, Any] | None = None,
    wrap: Callable[[str, list[str], dict[str, str]], list[str]] = lambda _role, command, _environment: command,
    **settings: str,
) -> Generator[World]:
    """Run API, controller and workers until the end of the block.

    Without `servers` they use SQLite and a folder of blobs, as `burnish-server up` does. `wrap` may change a
    role's command line and its environment.
    """
    servers = servers or Servers()
    record = folder / "ledger.jsonl"
    with ExitStack() as stack:
        valkey = stack.enter_context(run_valkey())
        proxies = {"Valkey": stack.enter_context(FaultProxy(str(valkey.socket)))}
        direct: dict[str, str] = {"data": str(folder / "data"), "secret_key": "k" * 32} | pace | settings
        direct["catalog"] = str(write_catalog(folder, base or _base_without_model(folder)))
        direct |= {"webhook_allowed_networks": "127.0.0.0/8", "log_format": "text"}
        spoiled = direct | {"redis_url": f"redis://127.0.0.1:{proxies['Valkey'].port}/0"}
        direct["redis_url"] = valkey.url
        if servers.postgres is not None:
            host, name = servers.postgres.url.partition("host=")[2], f"world_{secrets.token_hex(6)}"
            _create_database(servers.postgres.url, name)
            proxies["SQL"] = stack.enter_context(FaultProxy(f"{host}/.s.PGSQL.5432"))
            direct["database_url"] = servers.postgres.url.replace("/postgres?", f"/{name}?")
            spoiled["database_url"] = f"postgresql+psycopg://postgres@127.0.0.1:{proxies['SQL'].port}/{name}"
        if servers.s3 is not None:
            prefix, port = secrets.token_hex(6), httpx.URL(servers.s3.endpoint_url).port or 0
            proxies["S3"] = stack.enter_context(FaultProxy(port))
            direct["storage_url"] = servers.s3.url_of(prefix)
            spoiled["storage_url"] = direct["storage_url"].replace(f":{port}", f":{proxies['S3'].port}")
            for environment in (direct, spoiled):
                environment |= {
                    "storage_access_key": servers.s3.access_key,
                    "storage_secret_key": servers.s3.secret_key,
                }
        made = Settings.model_validate({**direct, "data": Path(direct["data"])})
        made.data.mkdir(mode=0o700)
        upgrade_schema(made)
        context = open_context(made)
        stack.callback(context.db.close)
        with context.db.write() as session:
            key, token = create_key(session, context.hmac_key, project="default", name="faults")
        port = free_port()
        chosen = Options.model_validate(options or {})
        if not real_trainer:
            trainer = (sys.executable, "-m", TRAINER_MODULE, str(record), str(step_seconds))
            chosen = chosen.model_copy(
                update={"trainer": chosen.trainer or trainer, "prepare": PREPARE, "inspect": INSPECT}
            )
        roles = {"api": [str(port)], "controller": []} | {f"worker-{n}": [] for n in range(1, workers + 1)}
        processes: dict[str, ServiceProcess] = {}
        for role, arguments in roles.items():
            environment = clean_environment(
                PYTHONPATH=str(REPOSITORY),
                **{f"BURNISH_{name.upper()}": value for name, value in spoiled.items()},
                **{VARIABLE: chosen.model_dump_json()},
            )
            command = [sys.executable, "-m", "tests.faults.process", role, *arguments]
            command = wrap(role, command, environment)
            processes[role] = ServiceProcess(role, command, environment, folder / f"{role}.log")
        url = f"http://127.0.0.1:{port}/v1"
        world = World(folder, made, context, processes, proxies, valkey, url, token, key.project_id, record)
        stack.enter_context(_kept_alive(world))
        wait_until(lambda: _answers(url), what="the API")
        for worker in world.workers:
            wait_until(lambda log=worker.log: b"listens on the queue" in log.read_bytes(), what="the worker")
        yield world


@contextmanager
def _kept_alive(world: World) -> Generator[None]:
    done = threading.Event()

    def tend() -> None:
        while not done.wait(RESTART_SECONDS):
            for process in world.processes.values():
                process.tend()

    # A thread would do for starting them, if nothing were tied to the life of the thread that starts it: nothing is.
    keeper = threading.Thread(target=tend, name="keeper", daemon=True)
    for process in world.processes.values():
        process.start()
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        for proxy in world.proxies.values():
            proxy.heal()
        for worker in world.workers:
            worker.send(signal.SIGCONT)
        for process in (*world.workers, world.processes["controller"], world.processes["api"]):
            process.stop()


def running_jobs(world: World) -> dict[str, str]:
    """Return the jobs that run, by their workers' names."""
    with world.context.db.read() as session:
        query = select(JobRow.lease_owner, JobRow.id).where(JobRow.state == JobState.RUNNING)
        return {row.lease_owner: row.id for row in session.execute(query)}


def _create_database(url: str, name: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()


def _base_without_model(folder: Path) -> Path:
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    (base / "tokenizer.json").write_text("{}")
    save_file({"weight": np.zeros(1, np.float32)}, base / "model.safetensors")
    return base


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url.removesuffix('/v1')}/readyz", timeout=10).status_code == 200
    return False
