"""`burnish-server up`: the whole service on one machine, under one data folder, in one terminal."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, repeat
from pathlib import Path
from types import FrameType

import click
import httpx

from service import migrations
from service.cli import checks
from service.cli.client_file import NAME as CLIENT_FILE
from service.cli.client_file import write_client_file
from service.cli.errors import CommandFailed
from service.cli.processes import ServiceProcess, stop_in_order
from service.context import open_context
from service.kit.metrics import forget_notes
from service.kit.reserve import DiskReserve
from service.kit.settings import Settings, SettingsError, load_settings
from service.queue.embedded import MAX_SOCKET_PATH, EmbeddedValkey
from service.staging.base_checks import look_at_files, store_look
from service.webhooks.target import configured_target

READY_SECONDS = 120.0
_LOOK_SECONDS = 0.2
_WORKER_MARGIN = 20.0
"""What a worker needs beyond its trainer's time to stop: to send the last checkpoint to the blob store."""
_PATIENCE = 15.0


class StopSignals:
    """How often the user has asked to stop: once is in order, twice is in a hurry."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._count_signal)

    def should_stop(self) -> bool:
        return self.count > 0

    def should_hurry(self) -> bool:
        """Whether to stop without waiting for anyone."""
        return self.count > 1

    def _count_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


def run_up(data: Path | None, *, host: str, port: int, workers: int, apis: int) -> int:
    """Run until SIGINT or SIGTERM and return 0. Raises CommandFailed, SettingsError, ValkeyFailed."""
    if data is not None:
        os.environ["BURNISH_DATA"] = str(data)
    settings = load_settings()
    configured_target(settings)
    checks.check_port(host, port)
    checks.check_packages()
    DiskReserve.from_settings(settings).release_if_full()
    checks.prepare_folder(settings.data)
    with checks.lock_data_folder(settings.data):
        if warning := checks.low_space(settings.data):
            _print_line(f"Warning: {warning}")
        signals = StopSignals()
        with _open_queue(settings) as (valkey, redis_url), _engine_socket(settings) as engine_socket:
            migrations.upgrade_schema(settings)
            forget_notes(settings.data)
            _report_broken_bases(settings)
            environment = {**os.environ, "BURNISH_DATA": str(settings.data), "BURNISH_REDIS_URL": redis_url}
            environment.setdefault("BURNISH_ENGINE_URL", f"unix://{engine_socket}")
            listen = ("api", "--host", host, "--port", str(port), "--share-port")
            groups = _make_processes(
                settings, environment, listen=listen, apis=apis, workers=workers, socket=engine_socket
            )
            children = [child for group in groups for child in group]
            try:
                _run_until_stopped(settings, signals, children, valkey, url=_reachable_url(host, port))
            finally:
                _print_line("Stopping; running jobs write a checkpoint first. Ctrl-C again stops at once.")
                stop_in_order(groups, signals.should_hurry)
        _print_line("Stopped.")
    return 0


def _report_broken_bases(settings: Settings) -> None:
    """Say which base models cannot be used, before anyone orders a job on one: the service starts all the same."""
    try:
        context = open_context(settings)
    except SettingsError:
        return  # the first process that needs what is wrong says so
    try:
        for entry in context.catalog.models:
            findings = look_at_files(entry)
            with context.db.write() as session:
                problem = store_look(session, context, entry, findings)
            if problem is not None:
                _print_line(f"Warning: jobs on {entry.id} are refused. {problem}")
    finally:
        context.db.close()


def _run_until_stopped(
    settings: Settings,
    signals: StopSignals,
    children: Sequence[ServiceProcess],
    valkey: EmbeddedValkey | None,
    *,
    url: str,
) -> None:
    for child in children:
        child.start()
    if not _await_ready(url, signals, children):
        return
    _print_welcome(settings, url)
    while not signals.should_stop():
        for child in children:
            child.restart_if_dead(_print_line)
        if valkey is not None and (status := valkey.poll()) is not None:
            _print_line(
                f"Valkey ended with status {status}; starting it again. No job is lost: the database has them all."
            )
            valkey.start()
        time.sleep(_LOOK_SECONDS)


def _await_ready(url: str, signals: StopSignals, children: Sequence[ServiceProcess]) -> bool:
    """Wait until the API answers; False if the user stops meanwhile. Raises CommandFailed if a process dies."""
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(trust_env=False, timeout=5) as client:
        while not signals.should_stop():
            for child in children:
                if child.exit_status() is not None:
                    raise CommandFailed(f"{child.role} did not start: {child.last_words()} (its log: {child.log})")
            if _is_ready(client, url):
                return True
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"The API did not answer within {READY_SECONDS:.0f} s; its log: {_api_log(children)}"
                )
            time.sleep(_LOOK_SECONDS)
    return False


def _api_log(children: Sequence[ServiceProcess]) -> Path:
    return next(child.log for child in children if child.role == "api")


def _is_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def _print_welcome(settings: Settings, url: str) -> None:
    context = open_context(settings)
    try:
        token = write_client_file(context, f"{url}/v1")
    finally:
        context.db.close()
    _print_line(f"Burnish is ready at {url}/v1")
    if token is not None:
        # Elsewhere than on a terminal, what is printed is kept: in a container's log, in a file.
        token_line = f"{token}   (shown once)" if sys.stdout.isatty() else "the api_key in the file for clients"
        _print_line(f"API key:       {token_line}")
    _print_line(f"For clients:   {settings.data / CLIENT_FILE}   (readable for its owner alone)")
    _print_line(f"Logs:          {settings.data / 'logs'}")
    if settings.metrics_address != "off":
        _print_line(f"Metrics:       {settings.metrics_address or settings.data / 'metrics'}")
    _print_line("Ctrl-C stops it.")


def _make_processes(
    settings: Settings, environment: dict[str, str], *, listen: Sequence[str], apis: int, workers: int, socket: Path
) -> list[list[ServiceProcess]]:
    """Return the processes in the order of their stop: workers, controller, APIs, and the engine that they ask."""
    logs = settings.data / "logs"
    addresses = _metrics_addresses(settings)

    def make_process(role: str, *arguments: str, patience: float = _PATIENCE) -> ServiceProcess:
        own = environment | {"BURNISH_METRICS_ADDRESS": next(addresses)}
        return ServiceProcess(role, arguments, logs=logs, environment=own, patience=patience)

    patience = settings.stop_seconds + _WORKER_MARGIN
    first, controller = make_process("api", *listen), make_process("controller", "controller")
    engines = [] if settings.engine_url else [make_process("engine", "engine", "--socket", str(socket))]
    names = [f"worker-{number}" for number in range(1, workers + 1)]
    running = [make_process(name, "worker", "--name", name, patience=patience) for name in names]
    other_apis = [
        make_process(name, *listen, "--name", name) for name in (f"api-{number}" for number in range(2, apis + 1))
    ]
    return [running, [controller], [first, *other_apis], engines]


def _metrics_addresses(settings: Settings) -> Iterator[str]:
    """Yield an address for each process: API, controller, engine, workers. One port that is set is the first's."""
    if settings.metrics_address == "off":
        return repeat("off")
    host, port = settings.metrics or ("127.0.0.1", 0)
    url_host = f"[{host}]" if ":" in host else host
    return (f"{url_host}:{port + place if port else 0}" for place in count())


@contextmanager
def _engine_socket(settings: Settings) -> Generator[Path]:
    """Give the path of the engine's socket: in the data folder, or in a private temporary one if that is too long."""
    path = settings.data / "engine" / "engine.sock"
    path.unlink(missing_ok=True)
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="burnish-") as folder:
        yield Path(folder) / path.name


@contextmanager
def _open_queue(settings: Settings) -> Generator[tuple[EmbeddedValkey | None, str]]:
    """Run the embedded Valkey, unless a setting names another; give it and the queue's URL."""
    if settings.redis_url is not None:
        yield None, settings.redis_url
        return
    with EmbeddedValkey(settings.valkey_socket.parent) as valkey:
        yield valkey, valkey.url


def _reachable_url(host: str, port: int) -> str:
    """Return where this machine reaches a server that listens on `host`."""
    reachable_host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{reachable_host}]:{port}" if ":" in reachable_host else f"http://{reachable_host}:{port}"


def _print_line(line: str) -> None:
    click.echo(line)
