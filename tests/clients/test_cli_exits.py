"""How the command ends: each status, and a sentence, never a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from burnish.cli import Exit
from tests.clients.scripted import SSE, Answer, Server, a_file, a_job, a_page, frame, refusal
from tests.clients.test_cli import JOB, JOBS, Run, process, run

__all__ = ["run"]

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"


def test_the_statuses_are_documented(run: Run) -> None:
    known = {str(int(status)) for status in Exit}
    _, epilog = run("--help")[1].split("Exit status:")
    assert set(re.findall(r"^ +(\d+)  \S", epilog, re.M)) == known
    assert set(re.findall(r"^\| (\d+) \|", README.read_text("utf-8"), re.M)) == known


def watched(server: Server, job: dict[str, object]) -> None:
    server.on("GET", f"{JOB}/events", Answer([frame(job, "done")], headers=SSE))


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_became_of_the_job(run: Run, server: Server, options: list[str]) -> None:
    watched(server, a_job())
    assert run("jobs", "watch", "ftjob-1", *options)[0] == Exit.DONE
    watched(server, a_job("failed"))
    assert run("jobs", "watch", "ftjob-1", *options)[0] == Exit.JOB_FAILED
    watched(server, a_job("cancelled"))
    status, _, err = run("jobs", "watch", "ftjob-1", *options)
    assert (status, err) == (Exit.JOB_CANCELLED, "Error: Job ftjob-1 was cancelled.\n")


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 422, 500])
def test_the_server_refuses(run: Run, server: Server, code: int, naps: list[float]) -> None:
    server.on("GET", JOB, refusal(code, "不行。"))
    assert run("jobs", "get", "ftjob-1") == (Exit.REFUSED, "", "Error: 不行。 (request req_7)\n")


def test_something_else_answers(run: Run, server: Server) -> None:
    server.on("GET", JOB, Answer(b"<html>hello</html>"))
    status, _, err = run("jobs", "get", "ftjob-1")
    assert (status, err.count("\n")) == (Exit.REFUSED, 1)
    assert err.startswith("Error: http://127.0.0.1:")
    assert "answered something unexpected" in err


def test_the_connection_breaks(run: Run, server: Server, naps: list[float]) -> None:
    server.on("GET", JOB, Answer(b"{", headers={"Content-Length": "500"}, cut=True))
    status, _, err = run("jobs", "get", "ftjob-1")
    assert (status, err.count("\n")) == (Exit.UNREACHABLE, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["jobs", "create", "--model", "t", "--training-file", "."], "neither a file here nor a file's id"),
        (["jobs", "create", "-f", "."], "is a directory"),
        (["jobs", "create", "-f", "none.yaml"], "does not exist"),
        (["files", "upload", "."], "is a directory"),
        (["jobs", "creat"], "creat"),
        (["jobs", "list", "--limit", "many"], "not a valid integer"),
        (["jobs", "get"], "Missing argument"),
        (["completion", "sh"], "'sh' is not one of"),
    ],
)
def test_wrong_usage(run: Run, server: Server, arguments: list[str], said: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (Exit.USAGE, "")
    assert said in err
    assert server.seen == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["jobs", "get", ".."], "'..' is not an id."),
        (["jobs", "get", ""], "'' is not an id."),
        (["jobs", "report", "ftjob-1", "-o", "folder"], "folder: Is a directory."),
        (["jobs", "report", "ftjob-1", "-o", "none/x.json"], "none/x.json: No such file or directory."),
        (["jobs", "download", "ftjob-1", "-o", "plain.txt/x.zip"], "plain.txt: "),
        (["jobs", "download", "ftjob-1", "--extract", "-o", "plain.txt"], "plain.txt exists already"),
        (["data", "check", "plain.txt"], "plain.txt"),
        (["data", "check", "broken.jsonl"], ""),
    ],
)
def test_what_is_wrong_here(run: Run, server: Server, arguments: list[str], said: str) -> None:
    Path("folder").mkdir()
    Path("plain.txt").write_bytes(b"\xff\xfe")
    Path("broken.jsonl").write_bytes(b"{")
    server.on("GET", f"{JOB}/report", Answer({"rows": 1}))
    status, out, err = run(*arguments)
    assert status == Exit.ERROR
    assert said in err + out
    assert "Traceback" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(run: Run) -> None:
    Path("job.yaml").write_text("model: x")
    Path("job.yaml").chmod(0)
    assert run("jobs", "create", "-f", "job.yaml")[0] in (Exit.ERROR, Exit.USAGE)


def test_settings_that_are_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_BASE_URL", "nonsense")
    status, _, err = run("jobs", "list")
    assert (status, err.count("\n")) == (Exit.ERROR, 1)
    assert "must look like http://127.0.0.1:8000/v1" in err
    monkeypatch.setenv("BURNISH_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("BURNISH_API_KEY", "钥匙")
    assert run("jobs", "list")[0] == Exit.ERROR


def test_a_question_nobody_answers_with_yes(server: Server) -> None:
    with process("jobs", "delete", "ftjob-1", BURNISH_BASE_URL=server.url, stdin="") as child:
        _, err = child.communicate(timeout=60)
    assert child.returncode == Exit.ERROR
    assert "Nothing was done." in err
    assert server.seen == []


@pytest.mark.integration
def test_no_reader(server: Server) -> None:
    server.on("GET", "/v1/files", Answer(a_page([a_file(number) for number in range(3000)])))
    # Unbuffered, Python itself does not notice that a long text was not taken.
    settings = {"BURNISH_BASE_URL": server.url, "PYTHONUNBUFFERED": ""}
    for options in (["--json"], []):
        with process("files", "list", "--limit", "3000", *options, **settings) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            child.stdout.readline()
            child.stdout.close()
            assert child.stderr.read() == ""
        assert child.returncode == Exit.NO_READER


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], {"httpx", "pydantic", "rich", "yaml", "orjson", "anyio", "asyncio", "pyarrow"}),
        (["jobs", "--help"], {"httpx", "pydantic", "rich", "yaml", "orjson", "anyio", "pyarrow"}),
        (["jobs", "create", "--help"], {"httpx", "pydantic", "rich", "yaml", "orjson", "anyio", "pyarrow"}),
        (["completion", "fish"], {"httpx", "pydantic", "rich", "yaml", "pyarrow"}),
        (["jobs", "list"], {"yaml", "pyarrow", "burnish.datasets", "burnish.progress", "burnish.chat_schemas"}),
    ],
)
def test_what_is_not_loaded(server: Server, arguments: list[str], absent: set[str]) -> None:
    """Start-up is quick because of what stays unloaded; seconds would tell of the machine."""
    server.on("GET", JOBS, Answer(a_page([a_job()])))
    code = (
        "import sys; from burnish.cli import main; status = main(sys.argv[2:]);"
        "sys.exit(repr(sorted(set(sys.argv[1].split()) & set(sys.modules))) if status == 0 else status)"
    )
    never = {"torch", "transformers", "service", "trainer", "fastapi", "openai", "numpy"}
    done = subprocess.run(
        [sys.executable, "-c", code, " ".join(absent | never), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "BURNISH_API_KEY": "k", "BURNISH_BASE_URL": server.url},
    )
    assert done.stderr == "[]\n"
    assert done.stdout


def test_each_command_says_of_itself_what_the_list_says(run: Run) -> None:
    listed = dict(re.findall(r"^  (\w+) +(\S.*)$", run("--help")[1].split("Commands:")[1].split("Exit")[0], re.M))
    assert set(listed) > {"login", "files", "data", "jobs", "models", "chat", "webhooks", "keys"}
    for name, said in listed.items():
        status, out, _ = run(name, "--help")
        assert status == Exit.DONE
        first = " ".join(out.split("\n\n")[1].split())
        assert first.split()[:2] == said.split()[:2], f"{name}: {said!r} is not {first!r}"
