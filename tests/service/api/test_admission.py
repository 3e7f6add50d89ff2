"""Nothing is read of a body before key, scope and rate are checked, and what a body costs is bounded on every route."""

from __future__ import annotations

import json
import re
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi.routing import APIRoute

from service.api.app import create_app
from service.api.guards import MAX_JSON_BYTES, MAX_PARAMETERS
from service.jobs.schemas import MAX_METADATA
from service.keys.service import create_key
from service.kit.json_body import MAX_ELEMENTS
from tests.fixtures.roles import Roles, running_roles

CPU_SECONDS_PER_MIB = 0.4
"""What a MiB of any body may cost on a slow and busy machine; on a quiet one the slowest takes a tenth of it."""
MEMORY_BYTES = 64 << 20
"""How much the process may grow over all of it."""
_NUMBERS = ",".join(["0"] * 30_000)
_HOSTILE = {
    "a long key above many numbers": f'{{"{"A" * 60_000}": [{_NUMBERS}]}}',
    "unknown keys beyond the bound": "{" + ",".join(f'"k{n}":0' for n in range(80_000)) + "}",
    "unknown keys within the bound": "{" + ",".join(f'"键{n}":0' for n in range(MAX_ELEMENTS - 2)) + "}",
    "nested lists": "[" * 400_000,
    "empty objects": '{"messages": [' + ",".join(["{}"] * 300_000) + "]}",
    "wrong messages": '{"model": "x", "messages": [' + ",".join(["0"] * (MAX_ELEMENTS - 9)) + "]}",
    "wrong parts": '{"model": "x", "messages": [{"role": "user", "content": ['
    + ",".join(['{"type": "q"}'] * (MAX_ELEMENTS // 2 - 9))
    + "]}]}",
    "a long text": '{"model": "' + "文" * 340_000 + '"}',
    "a text of quotes": '{"model": "' + '\\"' * 500_000 + '"}',
    "half pairs": '{"model": ["' + "\\ud800" * 100 + '", ' + _NUMBERS[:MAX_ELEMENTS] + "]}",
}


def routes() -> list[tuple[str, str]]:
    """Return method and path of every operation that may have a body."""
    found: list[APIRoute] = create_app(None).state.routes
    return sorted(
        (method, re.sub(r"\{[^}]+\}", "x", route.path))
        for route in found
        for method in route.methods or ()
        if method not in ("GET", "HEAD")
    )


@pytest.fixture(scope="module")
def one() -> Generator[Roles]:
    with running_roles("SQLite", apis=1) as roles:
        yield roles


@pytest.fixture(scope="module")
def process(one: Roles) -> psutil.Process:
    port = httpx.URL(one.url).port
    (pid,) = {
        c.pid
        for c in psutil.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port
    }
    assert pid is not None
    return psutil.Process(pid)


def peak_bytes(process: psutil.Process) -> int:
    """Return the most memory that the process has held since `forget_peak`."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


def forget_peak(process: psutil.Process) -> None:
    """Begin a new measurement of the most memory."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def used_seconds(process: psutil.Process) -> float:
    """Return the processor time that the process has used."""
    times = process.cpu_times()
    return times.user + times.system


def admin_key(one: Roles) -> str:
    """Make a key that may do everything."""
    with one.context.db.write() as session:
        _, token = create_key(
            session, one.context.hmac_key, project="hostile", name="all", scopes=("read", "write", "admin")
        )
    return token


@pytest.mark.integration
@pytest.mark.parametrize("kind", _HOSTILE)
@pytest.mark.parametrize("keyed", [False, True], ids=["stranger", "tenant"])
def test_a_body_costs_little_on_every_route(one: Roles, process: psutil.Process, kind: str, keyed: bool) -> None:
    """Processor seconds and memory per byte of body, with and without a key."""
    body = _HOSTILE[kind].encode()
    assert len(body) <= MAX_JSON_BYTES
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {admin_key(one)}"} if keyed else {})
    with httpx.Client(base_url=one.url, headers=headers, timeout=60) as client:
        client.post("/v1/fine_tuning/jobs", content=b"{}")
        forget_peak(process)
        memory, used, sent = peak_bytes(process), used_seconds(process), 0
        for method, path in routes():
            answer = client.request(method, path, content=body)
            # 503: these processes have no engine for chat, which a well-formed request is told
            assert answer.status_code in {*range(400, 500), 503}, (method, path, answer.text)
            assert (answer.status_code == 401) is not keyed
            assert answer.json()["error"]["message"]
            assert len(answer.content) < 8192
            sent += len(body)
    seconds = used_seconds(process) - used
    assert seconds < CPU_SECONDS_PER_MIB * sent / (1 << 20) + 0.01 * len(routes())
    assert peak_bytes(process) - memory < MEMORY_BYTES


@pytest.mark.integration
def test_no_byte_of_a_strangers_body_is_waited_for(one: Roles) -> None:
    """The answer comes though the announced body never does."""
    url = httpx.URL(one.url)
    for path in ("/v1/fine_tuning/jobs", "/v1/files", "/v1/chat/completions"):
        with socket.create_connection((url.host, url.port), timeout=20) as connection:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nContent-Type: application/json\r\n\r\n"
            )
            connection.sendall(head.encode())
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("scopes", [("read",), ("read", "write")])
def test_a_missing_scope_is_refused_before_the_body_is_parsed(one: Roles, scopes: Any) -> None:
    """A body that no parser takes is answered by 403, not by 400."""
    with one.context.db.write() as session:
        _, token = create_key(session, one.context.hmac_key, project="scoped", name="-".join(scopes), scopes=scopes)
    path = "/v1/fine_tuning/jobs" if scopes == ("read",) else "/v1/organization/projects"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = httpx.post(one.url + path, content=b"{" * 9, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_permissions")


def begin_large_body(one: Roles, key: str) -> socket.socket:
    """Send a head that announces a large body, and a part of that."""
    url = httpx.URL(one.url)
    connection = socket.create_connection((url.host, url.port), timeout=20)
    head = f"POST /v1/fine_tuning/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 900000\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + b" " * 1000)
    return connection


@pytest.mark.integration
def test_large_bodies_that_never_end_hold_up_their_own_project_alone(one: Roles) -> None:
    """More of them than there are places: the project's small requests and everybody else's large ones go on."""
    stalled = [begin_large_body(one, one.key) for _ in range(60)]
    try:
        mine = {"Authorization": f"Bearer {one.key}", "Content-Type": "application/json"}
        theirs = mine | {"Authorization": f"Bearer {admin_key(one)}"}
        path = f"{one.url}/v1/fine_tuning/jobs"
        large = json.dumps({"model": "大" * 100_000}, ensure_ascii=False).encode()
        for _ in range(3):
            assert httpx.post(path, content=large, headers=theirs, timeout=20).status_code == 400
            assert httpx.post(path, content=b"{}", headers=mine, timeout=20).status_code == 400
            assert httpx.get(path, headers=mine, timeout=20).status_code == 200
    finally:
        for connection in stalled:
            connection.close()


@pytest.mark.integration
def test_guesses_at_keys_do_not_hold_up_a_key_in_use(one: Roles) -> None:
    """Many guesses at once from one address: each is refused, and the key's requests are answered among them."""
    headers = {"Authorization": f"Bearer {one.key}"}
    url = f"{one.url}/v1/models"
    assert httpx.get(url, headers=headers).status_code == 200
    seen = Counter[int]()
    stop = threading.Event()

    def guess() -> None:
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                wrong = {"Authorization": f"Bearer burnish-{secrets.token_urlsafe(32)}"}
                seen[client.get(url, headers=wrong).status_code] += 1

    guessers = [threading.Thread(target=guess) for _ in range(30)]
    for thread in guessers:
        thread.start()
    try:
        assert {httpx.get(url, headers=headers, timeout=20).status_code for _ in range(20)} == {200}
    finally:
        stop.set()
        for thread in guessers:
            thread.join()
    assert set(seen) <= {401, 429}
    assert seen[401]


def ask(one: Roles, query: str) -> httpx.Response:
    return httpx.get(f"{one.url}/v1/fine_tuning/jobs?{query}", headers={"Authorization": f"Bearer {one.key}"})


def test_a_query_has_a_bound(one: Roles) -> None:
    """For every route, before anything of it is decoded."""
    answer = ask(one, "&".join(f"a{n}=1" for n in range(MAX_PARAMETERS + 1)))
    assert answer.status_code == 400
    assert str(MAX_PARAMETERS) in answer.json()["error"]["message"]
    assert ask(one, "&".join(f"a{n}=1" for n in range(MAX_PARAMETERS))).status_code == 200


def test_a_list_is_narrowed_by_as_many_pairs_as_a_job_has(one: Roles) -> None:
    """One more could fit no job, and each costs a join."""
    pairs = [f"metadata[键{n}]=v" for n in range(MAX_METADATA + 1)]
    answer = ask(one, "&".join(pairs))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata")
    assert str(MAX_METADATA) in answer.json()["error"]["message"]
    assert ask(one, "&".join(pairs[1:])).json()["data"] == []
