"""`burnish-server up` as real processes, from the first start to the last one's end."""

from __future__ import annotations

import os
import pty
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from service.cli.processes import ServiceProcess
from service.kit.settings import Settings
from tests.fixtures.processes import Server, clean_environment, free_port, running_server, wait_until
from tests.fixtures.service import GOOD_JSONL
from tests.service.cli.observed import is_one_sentence, read_client_file, too_wide


def up(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `up` where it is expected to refuse."""
    command = [sys.executable, "-m", "service", "up", *arguments]
    return subprocess.run(
        command, env=clean_environment(**environment), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.integration
def test_a_child_that_dies_is_started_again_after_longer_and_longer(tmp_path: Path) -> None:
    child = ServiceProcess("api", ["no-such-command"], logs=tmp_path / "logs", environment=os.environ, patience=5)
    said: list[str] = []
    child.start()

    def told_twice() -> bool:
        child.restart_if_dead(said.append)
        return len(said) == 2

    wait_until(told_twice, what="two restarts")
    child.wait_for_end(lambda: True)
    assert "ended with status 2; starting it again in 1 s" in said[0]
    assert "starting it again in 2 s" in said[1]
    assert "no-such-command" in child.last_words()


@pytest.mark.integration
def test_up_refuses_with_a_sentence_and_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused = up("--data", str(tmp_path / "data"), "--port", str(port))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"burnish-server: Port {port} on 127.0.0.1 is in use: choose another with --port.\n"
    assert not (tmp_path / "data").exists()
    refused = up("--port", str(free_port()), BURNISH_DATA=str(tmp_path / "d"), BURNISH_WEBHOOK_URL="http://h/")
    assert refused.returncode == 1
    assert is_one_sentence(refused.stderr)
    assert not (tmp_path / "d").exists()


@pytest.mark.integration
def test_up_says_why_a_process_did_not_start_and_leaves_none(tmp_path: Path) -> None:
    data = tmp_path / "data"
    failed = up("--data", str(data), "--port", str(free_port()), BURNISH_CATALOG=str(tmp_path / "absent.json"))
    assert failed.returncode == 1
    assert "did not start: The catalog" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (data / "client.json").exists()
    assert processes_of(data) == []


def processes_of(data: Path) -> list[psutil.Process]:
    """Return every process that carries the data folder in its environment or command line."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + " ".join(process.environ().values())
        except psutil.Error:
            continue
        if str(data) in text and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def of_role(server: Server, role: str) -> psutil.Process | None:
    for process in server.descendants():
        try:
            if role in process.cmdline():
                return process
        except psutil.Error:
            continue
    return None


@pytest.mark.integration
def test_up_from_the_first_start_to_ctrl_c_and_again(tmp_path: Path) -> None:
    data = tmp_path / "数据"
    with running_server(data, preloaded=False) as server:
        first = read_client_file(data)
        assert first["base_url"] == f"http://127.0.0.1:{server.port}/v1"
        assert stat.S_IMODE((data / "client.json").stat().st_mode) == 0o600
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        headers = {"Authorization": f"Bearer {first['api_key']}"}
        assert httpx.get(f"{first['base_url']}/models", headers=headers).status_code == 200
        roles = {path.stem for path in (data / "logs").iterdir()}
        assert roles == {"api", "api-2", "controller", "engine", "worker-1"}

        trained = httpx.post(
            f"{first['base_url']}/files",
            headers=headers,
            files={"file": ("a.jsonl", GOOD_JSONL)},
            data={"purpose": "fine-tune"},
        )
        assert trained.status_code == 200
        backed_up = subprocess.run(
            [sys.executable, "-m", "service", "backup", str(tmp_path / "b.tar"), "--data", str(data)],
            env=clean_environment(),
            check=True,
        )
        assert backed_up.returncode == 0
        assert stat.S_IMODE((tmp_path / "b.tar").stat().st_mode) == 0o600
        assert {path.name for path in data.rglob("*.sock")} == {"valkey.sock", "engine.sock"}
        assert (data / "reserve").stat().st_size == Settings(data=data).disk_reserve_bytes
        log = str(data / "up.log")  # this test's own
        assert [found for found in too_wide(data) if not found.startswith(log)] == []

        second = up("--data", str(data), "--port", str(free_port()))
        assert second.returncode == 1
        assert is_one_sentence(second.stderr)
        assert f"(process {server.process.pid})" in second.stderr

        victim = of_role(server, "controller")
        assert victim is not None
        victim.kill()
        wait_until(lambda: (now := of_role(server, "controller")) and now.pid != victim.pid, what="a new controller")

        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(120) == 0
    said = (data / "up.log").read_text(encoding="utf-8")
    assert first["api_key"] not in said
    assert f"For clients:   {data / 'client.json'}" in said
    assert "controller was ended by SIGKILL; starting it again" in said
    assert said.endswith("Stopped.\n")
    assert processes_of(data) == []

    with running_server(data, preloaded=False) as server:
        log = data / "up.log"
        wait_until(lambda: log.read_text(encoding="utf-8").count("is ready at") == 2, what="the second start")
        again = read_client_file(data)
        assert again == {"base_url": f"http://127.0.0.1:{server.port}/v1", "api_key": first["api_key"]}
        family = server.descendants()
        server.process.kill()  # nobody is left to stop the others: the kernel does
        server.process.wait()
        wait_until(lambda: not any(_lives(process) for process in family), what="the children to end")
    assert processes_of(data) == []
    assert first["api_key"] not in (data / "up.log").read_text(encoding="utf-8")


@pytest.mark.integration
def test_up_shows_the_first_key_on_a_terminal_alone(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "service", "up", "--data", str(tmp_path / "d"), "--port", str(free_port())]
    process = subprocess.Popen(command, env=clean_environment(), stdout=follower, stderr=subprocess.DEVNULL)
    os.close(follower)
    said = b""
    try:
        while b"Ctrl-C stops it." not in said:
            said += os.read(leader, 4096)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
        os.close(leader)
    assert read_client_file(tmp_path / "d")["api_key"].encode() in said


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
