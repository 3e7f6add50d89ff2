from __future__ import annotations

import json
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from service.__main__ import cli
from service.api.app import openapi_document
from service.cli import checks
from service.cli.client_file import write_client_file
from service.cli.errors import CommandFailed, sentence_of
from service.cli.processes import ServiceProcess
from service.context import Context
from service.kit.db import Database
from service.kit.settings import Settings
from service.tables.audit import AuditRow
from tests.fixtures.processes import Server, clean_environment, free_port, running_server, wait_until
from tests.fixtures.service import GOOD_JSONL, make_context

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, on a data folder of its own."""
    monkeypatch.setenv("BURNISH_DATA", str(tmp_path / "data"))

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, prog_name="burnish-server")

    return invoke


def up(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `up` where it is expected to refuse."""
    command = [sys.executable, "-m", "service", "up", *arguments]
    return subprocess.run(
        command, env=clean_environment(**environment), capture_output=True, text=True, timeout=120, check=False
    )


def is_one_sentence(text: str) -> bool:
    return text.startswith("burnish-server: ") and text.count("\n") == 1


def read_client_file(data: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((data / "client.json").read_text(encoding="utf-8"))
    return content


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from service.__main__ import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'sqlalchemy', 'fastapi', 'torch', 'redis', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(run: Run) -> None:
    from service.kit.version import VERSION

    assert run("--version").output.strip().endswith(VERSION)


@pytest.mark.parametrize(
    "arguments", [["train"], ["up", "--port", "0"], ["up", "--workers", "none"], ["keys", "create"]]
)
def test_wrong_usage_ends_with_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.slow
def test_openapi_is_the_applications_own(run: Run) -> None:
    assert json.loads(run("openapi").output) == openapi_document()


def test_a_key_with_scopes_and_an_end(run: Run) -> None:
    assert run("migrate").exit_code == 0
    made = run("keys", "create", "--project", "p", "--name", "n", "--scope", "read", "--expires-in", "0.5")
    assert made.exit_code == 0
    (line,) = run("keys", "list").output.splitlines()
    assert "\tread\t" in line
    assert "never used" in line
    assert "until 20" in line
    for days in ("0", "-1", "nan", "x", "9999"):
        refused = run("keys", "create", "--project", "p", "--name", "n", "--expires-in", days)
        assert refused.exit_code == 2
        assert "number of days" in refused.output
    assert run("keys", "create", "--project", "p", "--name", "n", "--scope", "root").exit_code == 2


def test_keys_from_creation_to_revocation(run: Run) -> None:
    assert run("migrate").exit_code == 0
    created = run("keys", "create", "--project", "团队", "--name", "笔记本")
    assert created.exit_code == 0
    token = created.stdout.strip()
    assert token.startswith("burnish-")
    key_id = created.stderr.split()[1]
    listed = run("keys", "list").output
    assert key_id in listed
    assert "团队\t笔记本" in listed
    assert listed.strip().endswith("live")
    assert token not in listed
    assert run("keys", "revoke", key_id).exit_code == 0
    assert "revoked" in run("keys", "list").output
    again = run("keys", "revoke", key_id)
    assert again.exit_code == 1
    assert is_one_sentence(again.stderr)


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb"])
def test_bad_names_are_usage_errors(run: Run, name: str) -> None:
    assert run("keys", "create", "--project", name, "--name", "n").exit_code == 2


def test_a_database_that_was_not_migrated(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    result = run("keys", "list")
    assert result.exit_code == 1
    assert is_one_sentence(result.stderr)
    assert "burnish-server migrate" in result.stderr


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"BURNISH_DATABASE_URL": "nonsense"}, "BURNISH_DATABASE_URL"),
        ({"BURNISH_DATABASE_URL": "sqlite:////proc/none/burnish.db"}, "does not answer"),
        ({"BURNISH_LEASE_SECONDS": "soon"}, "BURNISH_LEASE_SECONDS"),
    ],
)
def test_wrong_settings(run: Run, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], sentence: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run("migrate")
    assert result.exit_code == 1
    assert is_one_sentence(result.stderr)
    assert sentence in result.stderr


def test_expected_errors_have_sentences_and_others_have_none() -> None:
    assert sentence_of(PermissionError(13, "Permission denied", "/data")) == "Permission denied: /data"
    told = sentence_of(ModuleNotFoundError("No module named 'rq'", name="rq"))
    assert told is not None
    assert "'rq' is not installed" in told
    assert sentence_of(KeyError("ours")) is None


def test_an_unexpected_error_keeps_its_trace() -> None:
    from service.cli.errors import Commands

    group = Commands("x")

    @group.command("broken")
    def broken() -> None:
        raise KeyError("ours")

    result = CliRunner().invoke(group, ["broken"])
    assert isinstance(result.exception, KeyError)


def test_missing_packages_are_named_with_the_command() -> None:
    with pytest.raises(CommandFailed) as caught:
        checks.check_packages(("json", "no_such_package", "nor_this"))
    assert "no_such_package, nor_this" in caught.value.message
    assert "pip install 'burnish-server[trainer]'" in caught.value.message
    checks.check_packages(("json",))


def test_a_port_in_use_and_hosts_that_are_none_of_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(CommandFailed, match=f"Port {port} on 127.0.0.1 is in use: choose another with --port."):
            checks.check_port("127.0.0.1", port)
    checks.check_port("127.0.0.1", free_port())
    with pytest.raises(CommandFailed, match="not an address of this machine"):
        checks.check_port("192.0.2.1", free_port())
    with pytest.raises(CommandFailed, match="not an address of this machine"):
        checks.check_port("主机 名", free_port())


def too_wide(folder: Path) -> list[str]:
    """Return what of a folder others than its owner may enter, read or write."""
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return [f"{path} {path.stat().st_mode:o}" for path in paths if path.stat().st_mode & 0o077]


def test_the_data_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "数据"
    checks.prepare_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "blobs").mkdir(mode=0o755)
    (folder / "blobs" / "数据.jsonl").touch(mode=0o644)
    (tmp_path / "elsewhere").touch(mode=0o644)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    folder.chmod(0o755)
    checks.prepare_folder(folder)
    assert too_wide(folder) == []
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o644
    (tmp_path / "file").touch()
    with pytest.raises(CommandFailed, match=r"cannot be used: .* by --data"):
        checks.prepare_folder(tmp_path / "file" / "data")


def test_little_space_is_a_warning(tmp_path: Path) -> None:
    assert checks.low_space(tmp_path, least=0) is None
    assert "MiB are free" in (checks.low_space(tmp_path, least=1 << 62) or "")


def test_a_folder_is_locked_for_one(tmp_path: Path) -> None:
    with (
        checks.lock_data_folder(tmp_path),
        pytest.raises(CommandFailed, match=f"process {os.getpid()}"),
        checks.lock_data_folder(tmp_path),
    ):
        pass
    with checks.lock_data_folder(tmp_path):
        pass


@pytest.fixture
def first_start(tmp_path: Path) -> Any:
    context = make_context(tmp_path)
    yield context
    context.db.close()


def test_the_client_file_keeps_its_key_and_follows_the_port(first_start: Context, tmp_path: Path) -> None:
    token = write_client_file(first_start, "http://127.0.0.1:8000/v1")
    assert read_client_file(tmp_path) == {"base_url": "http://127.0.0.1:8000/v1", "api_key": token}
    assert stat.S_IMODE((tmp_path / "client.json").stat().st_mode) == 0o600
    (tmp_path / "client.json").chmod(0o644)
    assert write_client_file(first_start, "http://127.0.0.1:9000/v1") is None
    assert read_client_file(tmp_path) == {"base_url": "http://127.0.0.1:9000/v1", "api_key": token}
    assert stat.S_IMODE((tmp_path / "client.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content", [None, "", "[1]", '{"api_key": 5}', '{"api_key": "burnish-foreign-密钥"}', "\ufffd{"]
)
def test_a_client_file_that_is_missing_or_foreign_gets_a_new_key(
    first_start: Context, tmp_path: Path, content: str | None
) -> None:
    old = write_client_file(first_start, "http://127.0.0.1:8000/v1")
    if content is None:
        (tmp_path / "client.json").unlink()
    else:
        (tmp_path / "client.json").write_text(content, encoding="utf-8")
    new = write_client_file(first_start, "http://127.0.0.1:8000/v1")
    assert new is not None
    assert new != old
    assert read_client_file(tmp_path)["api_key"] == new


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
        server.process.kill()  # nobody is left to stop the others: the kernel tells them
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


@pytest.mark.slow
def test_what_a_sentence_repeats_does_not_steer_the_terminal(run: Run) -> None:
    run("migrate")
    refused = run("keys", "revoke", "\x1b[2J\x9b").output
    assert refused.startswith("burnish-server: There is no live key")
    assert all(char.isprintable() or char == "\n" for char in refused)


@pytest.mark.slow
def test_projects_are_listed_limited_and_deleted_and_audited(run: Run, tmp_path: Path) -> None:
    run("migrate")
    run("keys", "create", "--project", "团队 A", "--name", "n")
    ((project_id, name, _),) = [line.split("\t") for line in run("projects", "list").output.splitlines()]
    assert name == "团队 A"
    shown = run("projects", "limits", "团队 A", "--stored-bytes", "1000", "--running-jobs", "none").output
    assert "stored_bytes\t0 of 1000\t(project)\nrunning_jobs\t0 of none\t(project)\n" in shown
    assert "queued_jobs\t0 of none\t(default)" in shown
    back = run("projects", "limits", project_id, "--stored-bytes", "default").output
    assert "stored_bytes\t0 of none\t(default)" in back
    for wrong in (("--stored-bytes", "much"), ("--stored-bytes", "-1")):
        assert run("projects", "limits", project_id, *wrong).exit_code == 2
    zero = run("projects", "limits", project_id, "--requests-per-minute", "0")
    assert (zero.exit_code, zero.output.startswith("burnish-server: --requests-per-minute:")) == (1, True)
    assert run("projects", "delete", "nobody's", "--yes").exit_code == 1
    assert run("projects", "delete", project_id).exit_code == 1, "it asks first"
    deleted = run("projects", "delete", project_id, "--yes")
    assert deleted.exit_code == 0, deleted.output
    assert run("projects", "list").output == ""
    assert run("keys", "list").output == ""
    with Database(f"sqlite:///{tmp_path / 'data' / 'burnish.db'}").read() as session:
        told = session.scalars(select(AuditRow).order_by(AuditRow.seq)).all()
    assert [row.type for row in told] == [
        "api_key.created",
        "project.limits.updated",
        "project.limits.updated",
        "project.deleted",
    ]
    assert all(row.actor == "operator" and row.operator and row.project_id == project_id for row in told)
