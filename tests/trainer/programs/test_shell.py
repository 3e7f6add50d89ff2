"""The shell of the programs: every way to fail is a sentence, a code and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.workdirs import REPOSITORY, environment
from trainer.contract.result import ExitCode
from trainer.kit.errors import TrainerError
from trainer.programs.shell import ENVIRONMENT, run_program


@pytest.fixture(autouse=True)
def _same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, os.environ.get(name, value))


def test_work_finds_the_environment_and_decides_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "unset")
    seen: dict[str, str | None] = {}

    def work() -> ExitCode:
        seen.update({name: os.environ.get(name) for name in ENVIRONMENT})
        return ExitCode.STOPPED

    assert run_program(work, HF_HUB_OFFLINE="0") is ExitCode.STOPPED
    assert seen == {**ENVIRONMENT, "HF_HUB_OFFLINE": "0"}


@pytest.mark.parametrize(
    ("error", "code", "exit_code", "traced"),
    [
        (TrainerError("invalid_job", "坏了。"), "invalid_job", ExitCode.BAD_INPUT, False),
        (TrainerError("broken", "Broken.", exit_code=ExitCode.FAULT), "broken", ExitCode.FAULT, False),
        (ModuleNotFoundError("no", name="trl"), "missing_package", ExitCode.FAULT, False),
        (OSError(28, "No space left on device"), "disk_full", ExitCode.FAULT, True),
        (RuntimeError("CUDA out of memory"), "out_of_memory", ExitCode.FAULT, True),
        (KeyError("unexpected"), "trainer_fault", ExitCode.FAULT, True),
    ],
)
def test_a_failure_is_reported_by_its_code(
    error: Exception, code: str, exit_code: ExitCode, traced: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> ExitCode:
        raise error

    assert run_program(work) is exit_code
    told = capsys.readouterr().err
    *traces, sentence = told.splitlines()
    assert sentence.startswith(f"{code}: ")
    assert bool(traces) is traced
    reported: list[TrainerError] = []
    assert run_program(work, reported.append) is exit_code
    assert [failure.code for failure in reported] == [code]


@pytest.mark.slow
@pytest.mark.parametrize("program", ["trainer", "trainer.programs.preview", "trainer.programs.prepare"])
def test_every_program_says_which_package_is_missing(program: str, tmp_path: Path) -> None:
    (tmp_path / "source.json").write_text('{"kind": "folder", "path": "/nowhere"}', "utf-8")
    more = {"trainer": [], "trainer.programs.preview": ["1"], "trainer.programs.prepare": [str(tmp_path / "base")]}
    first = tmp_path / "source.json" if program.endswith("prepare") else tmp_path
    arguments = [program, str(first), *more[program]]
    code = (
        "import runpy, sys\n"
        "sys.modules['torch'] = None\n"
        f"sys.argv[:] = {arguments!r}\n"
        f"runpy.run_module({program!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False
    )
    told = done.stderr + "".join(path.read_text("utf-8") for path in tmp_path.glob("*.json*"))
    assert done.returncode == ExitCode.FAULT
    assert "The Python package torch is not installed" in told
    assert "missing_package" in told
