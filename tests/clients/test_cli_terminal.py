"""What comes from a server, a dataset or a model never steers the terminal that shows it."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import burnish.cli
from burnish._text import escape_json, printable_line
from burnish.cli.completion import complete_files
from tests.clients.scripted import Answer, Server, a_file, a_job, a_page, an_event, refusal
from tests.clients.test_cli import JOB, JOBS, Run, run

__all__ = ["run"]

# Colours, the title of the window, the clipboard, DEL, C1's CSI, and text that runs the other way.
HOSTILE = "训练\x1b[31m\x1b]0;x\x07\x1b]52;c;eA==\x07\x7f\x9b2J\u202e末"
PLAIN = "\n\t"


def harmless(text: str) -> bool:
    return all(char.isprintable() or char in PLAIN for char in text)


@pytest.fixture
def hostile(server: Server) -> Server:
    """Return a server that says such things wherever text can stand."""
    job = {**a_job("queued"), "id": "ftjob-1", "model": HOSTILE, "suffix": HOSTILE, "metadata": {HOSTILE: HOSTILE}}
    file = {**a_file(1), "filename": HOSTILE}
    server.on("GET", JOBS, Answer(a_page([job])))
    server.on("GET", JOB, Answer(job))
    server.on("POST", f"{JOB}/cancel", Answer({**job, "id": HOSTILE}))
    server.on("GET", f"{JOB}/events", Answer(a_page([an_event(0, message=HOSTILE)])))
    server.on("GET", f"{JOB}/report", Answer({HOSTILE: {"x": HOSTILE, "y": [HOSTILE]}}))
    server.on("GET", "/v1/files", Answer(a_page([file])))
    server.on("GET", "/v1/files/file-1", Answer(file))
    server.on("GET", "/v1/files/file-9", refusal(404, f"No such file: {HOSTILE}"))
    server.on("GET", "/v1/files/file-1/content", Answer(HOSTILE.encode()))
    server.on(
        "GET",
        "/v1/organization/projects/p",
        Answer({"id": "p", "object": "organization.project", "status": "active", "name": HOSTILE, "created_at": 1}),
    )
    model = {"id": HOSTILE, "object": "model", "created": 1, "owned_by": HOSTILE}
    server.on("GET", "/v1/models", Answer({"object": "list", "data": [model]}))
    return server


COMMANDS = (
    "jobs list",
    "jobs get ftjob-1",
    "jobs cancel ftjob-1",
    "jobs events ftjob-1",
    "jobs report ftjob-1",
    "files list",
    "files get file-1",
    "files get file-9",
    "models list",
    "projects delete p",
)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_repeats_what_steers(run: Run, hostile: Server, command: str) -> None:
    _, out, err = run(*command.split())
    assert harmless(out + err)
    assert "训练" in out + err


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ("projects delete p",)])
def test_json_says_the_same_in_escapes(run: Run, hostile: Server, command: str) -> None:
    status, out, err = run(*command.split(), "--json")
    assert harmless(out + err)
    if status == 0:
        assert HOSTILE in _texts(json.loads(out))


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in [*value, *value.values()] for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def test_an_arguments_error_message_is_escaped(run: Run, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text('model: tiny\ntraining_file: file-1\nmethod: {type: "\\e[31m"}\n', encoding="utf-8")
    for arguments in (["jobs", "create", "-f", str(path), "--method", "dpo"], ["jobs", "get", "x", HOSTILE], [HOSTILE]):
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert harmless(err)


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_a_files_content_is_exact_in_a_pipe_and_harmless_on_a_terminal(
    run: Run, hostile: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("files", "content", "file-1")[1] == HOSTILE
    drawn = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", _Terminal(drawn, encoding="utf-8"))
    run("files", "content", "file-1")
    sys.stdout.flush()
    assert harmless(drawn.getvalue().decode())
    assert "训练" in drawn.getvalue().decode()


def test_what_a_shell_completes_is_one_line(hostile: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_BASE_URL", hostile.url)
    monkeypatch.setenv("BURNISH_API_KEY", "bk-test")
    hostile.on("GET", "/v1/files", Answer(a_page([{**a_file(1), "filename": f"a\nplain\n{HOSTILE}"}])))
    (item,) = complete_files(None, None, "file")
    assert item.help.startswith("a plain 训练")
    assert harmless(item.help)
    assert "\n" not in item.help


def test_text_that_json_keeps() -> None:
    value = {"名": HOSTILE, "emoji": "👩\u200d💻", "tag": "\U000e0001", "half": "\ud800"}
    written = escape_json(json.dumps(value, ensure_ascii=False))
    assert harmless(written)
    assert json.loads(written) == value
    assert printable_line("a\r\n b\tc") == "a\N{REPLACEMENT CHARACTER} b c"


def test_the_commands_print_by_what_makes_text_harmless() -> None:
    """`click.echo` of anything but a literal is for the module that checks it, and for what is no text of a server."""
    folder = Path(str(burnish.cli.__file__)).parent
    allowed = {"output.py", "__init__.py", "completion.py", "preview.py"}
    direct = [
        (path.name, node.lineno)
        for path in sorted(folder.glob("*.py"))
        if path.name not in allowed
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in ("click.echo", "click.secho", "print")
    ]
    assert direct == []
