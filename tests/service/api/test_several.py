"""Several processes of the API on one address."""

from __future__ import annotations

import socket

import httpx
import psutil
import pytest

from service.cli.checks import check_port
from service.cli.errors import CommandFailed
from tests.fixtures.roles import Roles, running_roles


def listeners(port: int) -> list[psutil.Process]:
    found = {c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port}
    return [psutil.Process(pid) for pid in found if pid is not None]


def ask(roles: Roles, times: int) -> set[int]:
    """Each request has a connection of its own, which the kernel gives to any of the processes."""
    headers = {"Authorization": f"Bearer {roles.key}"}
    return {httpx.get(f"{roles.url}/v1/models", headers=headers).status_code for _ in range(times)}


@pytest.mark.integration
def test_each_answers_and_one_is_enough() -> None:
    with running_roles("SQLite", apis=2) as roles:
        port = httpx.URL(roles.url).port
        assert port is not None
        both = listeners(port)
        assert len(both) == 2
        before = {process: process.cpu_times().user for process in both}
        assert ask(roles, 60) == {200}
        assert all(process.cpu_times().user > before[process] for process in both)
        both[0].kill()
        both[0].wait(10)
        assert listeners(port) == both[1:]
        assert ask(roles, 20) == {200}


def test_a_port_is_shared_only_with_those_that_share_it() -> None:
    taken = pytest.raises(CommandFailed, match="is in use: choose another with --port")
    with socket.create_server(("127.0.0.1", 0)) as alone, taken:
        check_port("127.0.0.1", alone.getsockname()[1], shared=True)
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as shared:
        port = shared.getsockname()[1]
        check_port("127.0.0.1", port, shared=True)
        with pytest.raises(CommandFailed, match="is in use"):
            check_port("127.0.0.1", port)
