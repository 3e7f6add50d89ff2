"""The Python client and `burnish` on limits, the audit log and the deletion of projects, against the real API."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path

import anyio
import httpx
import pytest

from burnish import AsyncBurnish, Burnish, NotFoundError, PermissionDeniedError, RateLimitError
from burnish.cli import Exit
from burnish.cli import main as cli
from tests.fixtures.databases import api_on, client_with, key_of, project_of
from tests.fixtures.service import GOOD_JSONL, RunningApi, upload

Terminal = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi]:
    with api_on("sqlite", tmp_path_factory.mktemp("client")) as running:
        yield running


@pytest.fixture
def admin(api: RunningApi) -> Generator[httpx.Client]:
    with client_with(api, "operators") as client:
        yield client


@pytest.fixture
def member(api: RunningApi, request: pytest.FixtureRequest) -> Generator[httpx.Client]:
    with client_with(api, f"项目 {request.node.name}"[:64], "read", "write") as client:
        yield client


def token(client: httpx.Client) -> str:
    return client.headers["authorization"].removeprefix("Bearer ")


@pytest.fixture
def terminal(
    api: RunningApi, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Terminal:
    """The `burnish` command, with an administrator's key unless another is given."""
    monkeypatch.setenv("BURNISH_BASE_URL", api.url)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str, key: httpx.Client = admin) -> tuple[int, str, str]:
        monkeypatch.setenv("BURNISH_API_KEY", token(key))
        status = cli(arguments)
        return status, *capfd.readouterr()

    return run


def test_limits(api: RunningApi, admin: httpx.Client, member: httpx.Client, tmp_path: Path) -> None:
    project = project_of(member)
    path = tmp_path / "训练.jsonl"
    path.write_bytes(GOOD_JSONL)
    with Burnish(base_url=api.url, api_key=token(admin)) as client:
        assert client.projects.limits(project).stored_bytes.limit is None
        set_ = client.projects.update_limits(project, stored_bytes=10, running_jobs=None, queued_jobs="default")
        assert (set_.stored_bytes.limit, set_.stored_bytes.source, set_.running_jobs.source) == (
            10,
            "project",
            "project",
        )
    with Burnish(base_url=api.url, api_key=token(member)) as client:
        own = client.limits()
        assert (own.project_id, own.stored_bytes.limit, own.stored_bytes.used) == (project, 10, 0)
        assert own.training_minutes.resets_at is not None
        with pytest.raises(RateLimitError, match="larger than the 10 bytes") as caught:
            client.files.create(file=path, purpose="fine-tune")
        assert caught.value.code == "insufficient_quota"
        with pytest.raises(PermissionDeniedError):
            client.projects.limits(project)


def test_the_audit_log_and_a_deletion(api: RunningApi, admin: httpx.Client, member: httpx.Client) -> None:
    project, file_id = project_of(member), upload(member).json()["id"]
    with Burnish(base_url=api.url, api_key=token(admin)) as client:
        renamed = client.projects.update(project, name=f"新 {project[-8:]}")
        assert client.projects.retrieve(project) == renamed
        (entry,) = client.audit_logs.list(event_types=["file.created"], project_ids=[project], since=1, until=2**40)
        assert (entry.object_id, entry.who, entry.outcome) == (file_id, key_of(member), "succeeded")
        assert client.projects.delete(project).deleted
        with pytest.raises(NotFoundError):
            client.projects.retrieve(project)
        assert [entry.type for entry in client.audit_logs.list(project_ids=[project], limit=1)] == [
            "project.deleted",
            "project.updated",
            "file.created",
        ]


def test_the_awaited_client_does_too(api: RunningApi, admin: httpx.Client, member: httpx.Client) -> None:
    async def work() -> None:
        project = project_of(member)
        async with AsyncBurnish(base_url=api.url, api_key=token(admin)) as client:
            assert (await client.limits()).project_id == project_of(admin)
            assert (await client.projects.update_limits(project, queued_jobs=3)).queued_jobs.limit == 3
            assert (await client.projects.limits(project)).queued_jobs.limit == 3
            await client.projects.update(project, name=f"aw {project[-8:]}")
            assert (await client.projects.retrieve(project)).name == f"aw {project[-8:]}"
            assert (await client.projects.delete(project)).deleted
            page = await client.audit_logs.list(resource_ids=[project])
            assert [entry.type for entry in page.data] == [
                "project.deleted",
                "project.updated",
                "project.limits.updated",
            ]

    anyio.run(work)


def test_the_command_line(admin: httpx.Client, member: httpx.Client, terminal: Terminal) -> None:
    project = project_of(member)
    status, table, _ = terminal("limits", project, "--stored-bytes", "1000", "--running-jobs", "none")
    assert status == 0
    assert ["stored_bytes", "0", "1000", "project"] in [line.split() for line in table.splitlines()]
    assert "no limit" in terminal("limits", key=member)[1]
    shown = json.loads(terminal("limits", "--json", key=member)[1])
    assert (shown["project_id"], shown["stored_bytes"]["limit"]) == (project, 1000)
    assert terminal("limits", "--stored-bytes", "1")[0] == 2
    assert terminal("limits", project, "--stored-bytes", "很多")[0] == 2
    assert terminal("limits", project, key=member)[0] == Exit.REFUSED
    assert terminal("projects", "delete", project, "--yes")[1] == f"{project}: deleted\n"
    assert terminal("projects", "delete", project, "--yes")[0] == Exit.REFUSED
    lines = terminal("audit", "--project", project, "--limit", "100")[1].splitlines()[1:]
    assert [line.split()[2] for line in lines] == ["project.deleted", "project.limits.updated"]
    (failed,) = json.loads(terminal("audit", "--type", "project.deleted", "--limit", "1", "--json")[1])
    assert failed["object_id"] == project
