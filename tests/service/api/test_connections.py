"""Many connections: places are bounded, those that nobody uses go first, and the process outlives a lack of files."""

from __future__ import annotations

import contextlib
import logging
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import httpx
import psutil
import pytest

from service.api.connections import OpenConnections, open_connections
from service.kit.descriptors import raise_descriptor_limit
from service.kit.networks import parse_networks
from service.kit.settings import Settings
from tests.fixtures.processes import clean_environment, free_port, wait_until
from tests.fixtures.service import RunningApi, make_context, run_api


class Fake:
    def __init__(self) -> None:
        self.ended = False

    def make_room(self) -> None:
        self.ended = True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def enter(places: OpenConnections, host: str = "192.0.2.1") -> Fake | None:
    if not places.take_place(host):
        return None
    made = Fake()
    places.register_connection(made, host)
    return made


def test_the_longest_unused_connection_makes_room() -> None:
    clock = Clock()
    places = OpenConnections(3, 3, clock=clock)
    first, second, third = (enter(places) for _ in range(3))
    assert first
    assert second
    assert third
    assert enter(places) is None, "all are too new to be ended"
    for busy in (first, second, third):
        places.note_busy(busy)
    clock.now = 100.0
    assert enter(places) is None, "a request that is served is not broken off"
    places.note_idle(second)
    places.note_idle(first)
    assert enter(places)
    assert (first.ended, second.ended, third.ended) == (False, True, False)
    assert places.count == 3
    places.unregister_connection(second)
    assert places.count == 3, "it left when it was ended"
    places.unregister_connection(third)
    assert places.count == 2


def test_a_connection_that_dribbles_a_head_makes_room_after_its_grace() -> None:
    clock = Clock()
    places = OpenConnections(1, 1, clock=clock)
    slow = enter(places)
    clock.now = 2.0
    assert enter(places)
    assert slow
    assert slow.ended


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"),
    ],
)
def test_an_address_has_a_share_and_a_trusted_proxy_has_all(one: str, same: str, other: str) -> None:
    places = OpenConnections(4, 2)
    assert enter(places, one)
    assert enter(places, same)
    assert enter(places, one) is None
    assert enter(places, other)
    trusting = OpenConnections(4, 2, parse_networks(f"{one}, 10.0.0.0/8"))
    assert all(enter(trusting, one) for _ in range(4))


def test_an_address_at_its_share_makes_room_of_its_own() -> None:
    places = OpenConnections(9, 1)
    stranger, mine = enter(places, "192.0.2.2"), enter(places, "192.0.2.1")
    assert stranger
    assert mine
    places.note_busy(stranger)
    places.note_busy(mine)
    places.note_idle(stranger)
    assert enter(places, "192.0.2.1") is None
    places.note_idle(mine)
    assert enter(places, "192.0.2.1")
    assert (stranger.ended, mine.ended) == (False, True)


def test_a_place_that_was_never_entered_is_released() -> None:
    places = OpenConnections(1, 1)
    assert places.take_place("192.0.2.1")
    places.give_back("192.0.2.1")
    assert enter(places)


@pytest.mark.parametrize(
    ("settings", "descriptors", "expected"),
    [
        ({}, 20_000, (4096, 2048)),
        ({}, 160, (32, 16)),
        ({}, 20, (8, 4)),
        ({"max_connections": 100, "max_connections_per_address": 90}, 20_000, (100, 90)),
    ],
)
def test_the_bound_follows_the_setting_and_the_limit_of_open_files(
    settings: dict[str, int], descriptors: int, expected: tuple[int, int]
) -> None:
    places = open_connections(Settings.model_validate(settings), descriptors)
    assert (places.most, places.most_per_address) == expected


def test_the_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300));"
        "from service.kit.descriptors import raise_descriptor_limit as up;"
        "print(up(200), resource.getrlimit(resource.RLIMIT_NOFILE)[0], up(), up(50))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["200", "200", "300", "50"]
    assert raise_descriptor_limit(8) == 8, "what is higher already stays"
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 8


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi]:
    with run_api(make_context(tmp_path_factory.mktemp("small"), max_connections=8)) as running:
        yield running


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def port_of(api: RunningApi) -> int:
    return httpx.URL(api.url).port or 0


def ask(connection: socket.socket) -> bytes:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection.recv(65536)


@pytest.mark.slow
def test_beyond_the_places_a_503_comes_at_once_and_the_log_counts(
    small: RunningApi, caplog: pytest.LogCaptureFixture
) -> None:
    port = port_of(small)
    with contextlib.ExitStack() as stack, caplog.at_level(logging.WARNING):
        begun = [stack.enter_context(connect(port)) for _ in range(4)]
        for connection in begun:  # a body that does not come: the head is there, so that they are no idle connections
            connection.sendall(
                b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                + small.key().encode()
                + b"\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
            )
        answers: list[bytes] = []

        def refused() -> bool:
            with connect(port) as more:
                answers.append(more.recv(65536))
            return answers[-1].startswith(b"HTTP/1.1 503 ")

        wait_until(lambda: refused() and len(answers) >= 20, what="refusals", seconds=30)
        last = answers[-1].lower()
        assert b'"code":"too_many_connections"' in last
        assert b"connection: close" in last
        assert b"retry-after: " in last
        assert re.search(rb"x-request-id: req_[0-9a-f]{32}\r", last)
    lines = [record for record in caplog.records if "BURNISH_MAX_CONNECTIONS" in record.getMessage()]
    assert 1 <= len(lines) <= 3
    wait_until(lambda: is_well(port), what="a free place", seconds=30)


def test_unused_connections_give_way_to_one_with_a_request(small: RunningApi) -> None:
    port = port_of(small)
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(connect(port)) for _ in range(4)]
        assert all(ask(connection).startswith(b"HTTP/1.1 200") for connection in kept)
        for _ in range(3):
            assert ask(stack.enter_context(connect(port))).startswith(b"HTTP/1.1 200")
        assert kept[0].recv(1) == b"", "the oldest was ended"


def hold_open(port: int, count: int) -> list[socket.socket]:
    held: list[socket.socket] = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            held.append(socket.create_connection(("127.0.0.1", port), timeout=5))
    return held


@contextlib.contextmanager
def api_process(folder: Path, descriptors: int) -> Generator[tuple[int, subprocess.Popen[bytes]]]:
    """Run one process of the API whose hard limit of open files is low."""
    make_context(folder).db.close()
    port = free_port()
    environment = clean_environment(BURNISH_DATA=str(folder), BURNISH_CATALOG=str(folder / "catalog.json"))
    command = [sys.executable, "-m", "service", "api", "--port", str(port)]
    limits = f'ulimit -n {descriptors}; exec "$@"'
    with (folder / "api.log").open("wb") as log:
        process = subprocess.Popen(["bash", "-c", limits, "-", *command], env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: is_well(port), what="the API", seconds=60)
        yield port, process
    finally:
        process.terminate()
        process.wait(30)


def is_well(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.integration
def test_hundreds_of_idle_connections_lock_out_no_client(tmp_path: Path) -> None:
    with api_process(tmp_path, 160) as (port, process):
        held = hold_open(port, 400)
        try:
            wait_until(lambda: is_well(port), what="an answer beside 400 idle connections", seconds=30)
            assert psutil.Process(process.pid).num_fds() < 160
        finally:
            for connection in held:
                connection.close()


@pytest.mark.integration
def test_the_process_outlives_a_lack_of_descriptors(tmp_path: Path) -> None:
    """The limit falls below what is open already: no connection can be taken, until it can."""
    with api_process(tmp_path, 160) as (port, process):
        open_now = psutil.Process(process.pid).num_fds()
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (open_now, hard))
        waiting = hold_open(port, 5)
        log = tmp_path / "api.log"
        try:
            wait_until(lambda: "no connection can be taken" in log.read_text(), what="the log", seconds=30)
            busy = psutil.Process(process.pid).cpu_times().user
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (160, hard))
            wait_until(lambda: is_well(port), what="an answer", seconds=30)
            assert log.read_text().count("no connection can be taken") <= 2
            assert psutil.Process(process.pid).cpu_times().user - busy < 5
            assert process.poll() is None
        finally:
            for connection in waiting:
                connection.close()
