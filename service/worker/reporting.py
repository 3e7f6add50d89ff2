"""Sends a job's metrics to its integrations, from its events in SQL: whatever they do, training does not wait.

Each run is kept by a child process (`worker/wandb_run.py`), fed by a thread of its own. What the child's library, its
server or the network do can stop these two alone, and for `END_SECONDS` the worker once the job's state is written.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, cast

import service
from service.context import Context
from service.jobs import repository
from service.jobs.integrations import WandbIntegration, WandbSettings
from service.jobs.states import TERMINAL
from service.kit.errors import Unavailable
from service.kit.log import carry_context
from service.kit.tether import tether_command
from service.tables.jobs import JobEventRow, JobRow, JobState
from service.worker.stage import work_folder

log = logging.getLogger(__name__)

END_SECONDS = 20.0
"""How long a worker waits at an attempt's end until everything has arrived."""
RETRY_SECONDS = 30.0
"""After so long a run that failed is resumed, twice as long the next time, and once at the attempt's end."""
OPENING_SECONDS = 90.0
COMMAND = (sys.executable, "-m", "service.worker.wandb_run")
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")
_NO_METRICS = {"step", "total_steps", "model", "seconds_left"}
_EXIT_CODES = {JobState.SUCCEEDED: 0, JobState.FAILED: 1, JobState.CANCELLED: 255}
"""As Weights & Biases reads them: finished, failed, killed."""
_MAX_TAG = 64


class _RunInterrupted(Exception):
    """The child could not open its run, or ended before it was asked to; the message is for the job's owner."""


@contextmanager
def report_metrics(context: Context, job: JobRow) -> Generator[None]:
    """Send what the job's events say for as long as the block runs, and a little longer. Raises nothing of its own."""
    with ExitStack() as stack:
        for number, item in enumerate(job.integrations or ()):
            wandb_settings = WandbIntegration.model_validate(item).wandb
            teller = _IntegrationEvents(context, job.id, number)
            if (reason := _explain_unusable(context)) is not None:
                # A warning and no failure: the job's worker may lack what its owner configured elsewhere.
                teller.add_warning("missing", reason)
                continue
            stack.enter_context(_Reporter(context, job, teller, wandb_settings))
        yield


def rows_of(events: Sequence[JobEventRow]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield events' metrics with their steps, in their order; the starting model's have names of their own."""
    for event in events:
        data = event.data or {}
        if event.type != "metrics" or "step" not in data:
            continue
        prefix = "base_" if data.get("model") == "base" else ""
        numbers = {
            f"{prefix}{name}": float(value)
            for name, value in data.items()
            if name not in _NO_METRICS and isinstance(value, int | float)
        }
        yield int(data["step"]), numbers


def _explain_unusable(context: Context) -> str | None:
    if find_spec("wandb") is None:
        return "the package wandb is not installed on this worker: pip install 'burnish-server[wandb]'"
    if context.settings.wandb_api_key is None:
        return "this worker has no key for it; its operator can set BURNISH_WANDB_API_KEY"
    return None


class _IntegrationEvents:
    """Writes the job's own events about one integration, each once in the job."""

    def __init__(self, context: Context, job_id: str, number: int) -> None:
        self.number = number
        self._context = context
        self._job_id = job_id

    def add_link(self, url: str) -> None:
        """Add an event with the run's address."""
        self._add_event("link", f"Weights & Biases run: {url}", "info", {"url": url})

    def add_warning(self, event_name: str, reason: str) -> None:
        """Add an event with the reason why metrics are not sent."""
        self._add_event(event_name, f"Metrics are not sent to Weights & Biases: {reason.rstrip('.')}.", "warn", None)

    def _add_event(self, event_name: str, message: str, level: str, data: Mapping[str, Any] | None) -> None:
        log.log(logging.WARNING if level == "warn" else logging.INFO, "%s: %s", self._job_id, message)
        try:
            with self._context.db.write() as session:
                # Locked, because a deletion between this look and the event would fail on the foreign key.
                if repository.lock_job(session, self._job_id) is not None:  # else it was deleted meanwhile
                    once_key = f"integration:{self.number}:{event_name}"
                    repository.add_event(session, self._job_id, message, level=level, data=data, once_key=once_key)
        except Unavailable as error:
            log.warning("%s: an event of an integration was not written: %s", self._job_id, error.message)


class _Reporter:
    """A context manager: one run of Weights & Biases, fed in a thread."""

    def __init__(
        self, context: Context, job: JobRow, teller: _IntegrationEvents, wandb_settings: WandbSettings
    ) -> None:
        self._context = context
        self._job = job
        self._teller = teller
        self._asked = wandb_settings
        self._ending = threading.Event()
        self._given_up = threading.Event()
        self._child: _WandbChild | None = None
        self._thread = threading.Thread(
            target=carry_context(self._report_until_over), name=f"wandb-{job.id}", daemon=True
        )

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        # The worker's next job waits for this, so a server that hangs costs it a bounded time.
        self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            self._teller.add_warning(
                "trouble", f"the last had not arrived {END_SECONDS:g} seconds after the attempt's end"
            )
            self._given_up.set()
            if self._child is not None:
                # The thread may be blocked in a write to the child's full pipe: the kill wakes it.
                self._child.kill()
            self._thread.join(END_SECONDS)

    def _report_until_over(self) -> None:
        for tries in count():
            last = self._ending.is_set()
            try:
                self._keep_run()
                return
            except _RunInterrupted as error:
                self._teller.add_warning("trouble", self._without_key(str(error)))
            except Exception:  # a job does not fail because its metrics cannot be sent
                log.exception("%s: its metrics are not sent any more", self._job.id)
                return
            if last or self._given_up.is_set():
                return
            # Woken by the end of the attempt, which brings one last try.
            self._ending.wait(RETRY_SECONDS * 2**tries)

    def _without_key(self, text: str) -> str:
        key = self._context.settings.wandb_api_key
        return text.replace(key.get_secret_value(), "***") if key else text

    def _keep_run(self) -> None:
        """Open the run and send it everything that it lacks until the attempt is over. Raises _RunInterrupted."""
        job = self._job
        name = f"wandb-{self._teller.number}-{job.id}"
        with work_folder(self._context.settings.work, name, job.lease_token) as folder, _WandbChild(folder) as child:
            self._child = child
            child.send(self._make_opening(folder))
            reply = child.read_answer(OPENING_SECONDS)
            self._teller.add_link(reply["url"])
            self._follow_events(child, _RunRows(first=reply["step"]))

    def _follow_events(self, child: _WandbChild, rows: _RunRows) -> None:
        last_seq, is_configured = 0, False
        while True:
            ending = self._ending.is_set()  # asked first: what is written afterwards belongs to another attempt
            try:
                job, events = self._read_events(last_seq)
            except Unavailable as error:
                log.info("%s: its metrics wait: %s", self._job.id, error.message)
                job, events = None, ()
            if job is not None and job.resolved is not None and not is_configured:
                child.send({"kind": "config", "values": {"hyperparameters": job.resolved}})
                is_configured = True
            for step, values in rows.add_values(rows_of(events)):
                child.send({"kind": "row", "step": step, "values": values})
            last_seq = events[-1].seq if events else last_seq
            # `ending` was read before the query, so an empty answer means that everything was sent.
            if ending and not events:
                self._end_run(child, rows, job)
                return
            if not events:
                self._ending.wait(self._context.settings.poll_seconds)

    def _read_events(self, last_seq: int) -> tuple[JobRow | None, Sequence[JobEventRow]]:
        with self._context.db.read() as session:
            return repository.by_id(session, self._job.id), repository.events_since(session, self._job.id, last_seq)

    def _end_run(self, child: _WandbChild, rows: _RunRows, job: JobRow | None) -> None:
        """End the run as the job ended; if the job resumes later, its next attempt sends the rest of the last row."""
        if job is None or job.state not in TERMINAL:
            # A run that is preempted can be resumed under its id by the next attempt.
            child.send({"kind": "end", "exit_code": 1, "preempted": True})
        else:
            for step, values in rows.last_row():
                child.send({"kind": "row", "step": step, "values": values})
            metrics = {
                "status": job.state,
                "trained_tokens": job.trained_tokens,
                "fine_tuned_model": job.fine_tuned_model,
                "error": job.error and job.error["message"],
            }
            values = {name: value for name, value in metrics.items() if value is not None}
            child.send({"kind": "end", "exit_code": _EXIT_CODES[JobState(job.state)], "values": values})
        child.read_answer(END_SECONDS)

    def _make_opening(self, folder: Path) -> dict[str, Any]:
        job, settings = self._job, self._context.settings
        assert settings.wandb_api_key is not None
        kind: str = job.method["type"]
        tags = ["burnish/finetune", f"burnish/{job.base}", f"burnish/{job.id}"]
        config = {
            "job_id": job.id,
            "model": job.model,
            "base_model": job.base,
            "method": kind,
            "training_file": job.training_file,
            "validation_file": job.validation_file,
            "suffix": job.suffix,
            "seed": job.seed,
            "hyperparameters": job.resolved or job.method[kind]["hyperparameters"],
        }
        return {
            "api_key": settings.wandb_api_key.get_secret_value(),
            "base_url": settings.wandb_base_url,
            "entity": self._asked.entity,
            "project": self._asked.project,
            "run_id": job.id,
            "name": self._asked.name or job.id,
            "tags": list(dict.fromkeys(tag for tag in (*tags, *self._asked.tags) if len(tag) <= _MAX_TAG)),
            "config": config,
            "folder": str(folder),
        }


class _RunRows:
    """Makes one row a step of what events say, once: rows before `first` are in the run already.

    A row is whole when the next begins. The same events always make the same rows, in whatever attempt.
    """

    def __init__(self, *, first: int) -> None:
        self._first = first
        self._step = 0
        self._values: dict[str, float] = {}

    def add_values(self, items: Iterator[tuple[int, dict[str, float]]]) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield the rows that are whole now."""
        for step, values in items:
            if step > self._step:
                yield from self.last_row()
                self._step, self._values = step, {}
            self._values.update(values)

    def last_row(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield the last row, if there is one that the run lacks."""
        if self._values and self._step >= self._first:
            yield self._step, self._values


class _WandbChild:
    """A running `worker/wandb_run.py`; it ends with the thread that made it."""

    def __init__(self, folder: Path) -> None:
        self._log_file = folder / "output.log"
        with self._log_file.open("wb") as output:
            self._process = subprocess.Popen(
                tether_command(COMMAND),
                cwd=folder,
                env=_wandb_environment(folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> _WandbChild:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                cast("Any", stream).close()

    def send(self, line: Mapping[str, Any]) -> None:
        """Send a line, waiting while the pipe is full. Raises _RunInterrupted."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._make_interruption("its program ended unexpectedly") from error

    def read_answer(self, seconds: float) -> dict[str, Any]:
        """Return the child's next answer. Raises _RunInterrupted."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise self._make_interruption(f"it did not answer within {seconds:g} seconds")
        line = self._process.stdout.readline()
        if not line:
            raise self._make_interruption("its program ended unexpectedly")
        answer: dict[str, Any] = json.loads(line)
        if "problem" in answer:
            raise self._make_interruption(str(answer["problem"]))
        return answer

    def kill(self) -> None:
        """End the child and what it started: the library's own service, which leaves its group."""
        for pid in list(_process_family(self._process.pid)):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _make_interruption(self, reason: str) -> _RunInterrupted:
        with suppress(OSError):
            log.debug("The end of its output: %s", self._log_file.read_bytes()[-2000:].decode("utf-8", "replace"))
        return _RunInterrupted(" ".join(reason.split())[:500])


def _process_family(pid: int) -> Iterator[int]:
    """Yield a process of ours that was not waited for, and its descendants (proc(5), Linux only)."""
    yield pid
    # Not `killpg`: the library starts its service in a session of its own.
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield from _process_family(int(child))


def _wandb_environment(folder: Path) -> dict[str, str]:
    """Return the child's whole environment: neither the service's secrets nor settings of another user of wandb."""
    variables = {name: os.environ[name] for name in _PASSED_ON + _PROXIES if name in os.environ}
    return variables | {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": str(Path(service.__file__).resolve().parents[1]),
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",
        "WANDB_ERROR_REPORTING": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
