from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from service.__main__ import cli
from service.api.app import openapi_document
from service.cli.errors import sentence_of
from service.kit.db import Database
from service.tables.audit import AuditRow
from tests.service.cli.observed import is_one_sentence

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, on a data folder of its own."""
    monkeypatch.setenv("BURNISH_DATA", str(tmp_path / "data"))

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, prog_name="burnish-server")

    return invoke


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
