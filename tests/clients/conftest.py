"""Fixtures of the client's tests: a scripted server and both clients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from burnish import AsyncBurnish, Burnish
from tests.clients.scripted import KEY, Driver, Server


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.released.set()
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in ("BURNISH_BASE_URL", "BURNISH_API_KEY", "BURNISH_DATA", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest, server: Server) -> Iterator[Callable[..., Driver]]:
    """Make a driver; keyword arguments go to the client."""
    made: list[Driver] = []
    with start_blocking_portal() as portal:

        def make(**kwargs: Any) -> Driver:
            settings = {"base_url": server.url, "api_key": KEY, **kwargs}
            if request.param == "sync":
                driver = Driver(Burnish(**settings))
            else:
                driver = Driver(AsyncBurnish(**settings), portal)
            made.append(driver)
            return driver

        yield make
        for driver in made:
            driver.call("close")


@pytest.fixture
def driver(make: Callable[..., Driver]) -> Driver:
    return make()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, not slept but written down."""
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    monkeypatch.setattr(Burnish, "sleep", staticmethod(naps.append))
    monkeypatch.setattr(AsyncBurnish, "sleep", staticmethod(nap))
    return naps
