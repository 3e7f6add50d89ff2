"""Completion in the shells themselves: what they offer after a beginning."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.scripted import Answer, Server, a_file, a_job, a_page, refusal
from tests.clients.test_cli import JOBS

pytestmark = pytest.mark.integration


@pytest.fixture
def surrounded(server: Server, tmp_path: Path) -> dict[str, str]:
    """An environment whose `burnish` is this one, on a server with two jobs, a model and a file."""
    program = tmp_path / "bin" / "burnish"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m burnish "$@"\n')
    program.chmod(0o755)
    server.on("GET", JOBS, Answer(a_page([a_job(), {**a_job("running"), "id": "ftjob-2"}])))
    models = [{"id": name, "object": "model", "owned_by": "我"} for name in ("tiny", "ft:tiny:org:客服:1")]
    server.on("GET", "/v1/models", Answer(a_page(models)))
    server.on("GET", "/v1/files", Answer(a_page([a_file(1)])))
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"BURNISH_BASE_URL": server.url, "BURNISH_API_KEY": "k"}
    return {**os.environ, **settings, "PATH": path, "LC_ALL": "C.UTF-8"}


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr == ""
    return done.stdout


def needed(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed here")
    return found


OFFERED = [
    ("burnish jo", {"jobs"}),
    ("burnish jobs pa", {"pause"}),
    ("burnish jobs create --keep", {"--keep-checkpoints"}),
    ("burnish jobs watch ", {"ftjob-1", "ftjob-2"}),
    ("burnish jobs create --method d", {"dpo"}),
    ("burnish jobs create --model ti", {"tiny"}),
    ("burnish files get f", {"file-1"}),
    ("burnish completion z", {"zsh"}),
]


def in_bash(line: str, environment: dict[str, str]) -> set[str]:
    script = (
        "source <(burnish completion bash)\n"
        f'read -ra COMP_WORDS <<< "{line}"\n'
        f'[[ "{line}" == *" " ]] && COMP_WORDS+=("")\n'
        "COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))\n"
        "_burnish_completion burnish\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    return set(run([needed("bash"), "--norc", "-c", script], environment).split())


@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_bash(surrounded: dict[str, str], line: str, offered: set[str]) -> None:
    assert in_bash(line, surrounded) == offered


@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_fish(surrounded: dict[str, str], line: str, offered: set[str]) -> None:
    script = f"source (burnish completion fish | psub); complete -C '{line}'"
    lines = run([needed("fish"), "--no-config", "-c", script], surrounded).splitlines()
    assert {line.split("\t")[0] for line in lines} == offered


@contextmanager
def terminal(command: list[str], environment: dict[str, str]) -> Iterator[int]:
    """Run a shell on a terminal of its own; gives the other end."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True)
    os.close(theirs)
    try:
        yield ours
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def read_until(terminal: int, wanted: str, seconds: float = 60) -> str:
    text, deadline = "", time.monotonic() + seconds
    while wanted not in text:
        assert time.monotonic() < deadline, f"waited in vain for {wanted!r} in {text!r}"
        if select.select([terminal], [], [], 0.2)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    return text


@pytest.mark.parametrize(("line", "wanted"), [("burnish jo\t", "jobs"), ("burnish jobs watch ftjob-\t", "ftjob-2")])
def test_zsh(surrounded: dict[str, str], line: str, wanted: str) -> None:
    with terminal([needed("zsh"), "-f", "-i"], {**surrounded, "TERM": "dumb", "PS1": "> "}) as zsh:
        os.write(zsh, b"autoload -U compinit; compinit -u -D; source <(burnish completion zsh); print re''ady\n")
        read_until(zsh, "ready\r\n")
        os.write(zsh, line.encode())
        read_until(zsh, wanted)


def test_a_server_that_is_away_or_refuses_completes_nothing(surrounded: dict[str, str], server: Server) -> None:
    assert in_bash("burnish jobs watch ", {**surrounded, "BURNISH_BASE_URL": "http://127.0.0.1:9/v1"}) == set()
    server.on("GET", JOBS, refusal(401, "Unknown key."))
    assert in_bash("burnish jobs watch ", surrounded) == set()


def test_an_unknown_shell(surrounded: dict[str, str]) -> None:
    done = subprocess.run(
        ["burnish", "completion", "tcsh"], env=surrounded, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
