"""`burnish score`: hands a file to the trainer's own program, or says what is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.cli import main
from tests.trainer.recipes.reward.jobs import ranking, trained_reward
from tests.trainer.workdirs import chat, jsonl

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def reward(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_reward(tmp_path_factory.mktemp("reward") / "job", tiny_base)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `burnish score`; gives the exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = int(main(["score", *map(str, arguments)]))
        out, errors = capfd.readouterr()
        return status, out, errors

    return run


@pytest.mark.slow
def test_a_file_is_scored(run: Run, tiny_base: Path, reward: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "回答.jsonl", tmp_path / "分数.jsonl"
    source.write_bytes(jsonl([ranking("你好吗?", [("我很好, 谢谢!", 1), ("No.", 2)]), chat("Hi", "Hello")]))
    status, out, errors = run(source, "-o", target, "--adapter", reward, "--base", tiny_base)
    assert (status, out) == (0, ""), errors
    assert errors.strip() == "2 row(s) scored, 0 line(s) left out."
    ranked, single = (json.loads(line) for line in target.read_text(encoding="utf-8").splitlines())
    assert len(ranked["scores"]) == 2
    assert ranked["responses"][0]["message"]["content"] == "我很好, 谢谢!"
    assert isinstance(single["score"], float)


@pytest.mark.slow
def test_a_broken_line_is_named_and_ends_with_2(run: Run, tiny_base: Path, reward: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(jsonl([chat("Hi", "Hello")]) + b"{oops\n")
    status, _, errors = run(source, "-o", target, "--adapter", reward, "--base", tiny_base)
    assert status == 2
    assert "line 2: Expecting property name" in errors
    assert len(target.read_text().splitlines()) == 1


def test_a_folder_that_is_not_a_base_is_named(run: Run, reward: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(jsonl([chat("Hi", "Hello")]))
    status, _, errors = run(source, "-o", tmp_path / "out.jsonl", "--adapter", reward, "--base", tmp_path)
    assert status == 2
    assert f"{tmp_path} has no config.json" in errors
    assert not (tmp_path / "out.jsonl").exists()


def test_a_python_without_the_trainer_is_said(run: Run, tiny_base: Path, reward: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(jsonl([chat("Hi", "Hello")]))
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')  # -S: no installed package is found
    bare.chmod(0o755)
    given = (source, "-o", tmp_path / "out.jsonl", "--adapter", reward, "--base", tiny_base, "--python")
    status, _, errors = run(*given, bare)
    assert status == 1
    assert "Scoring needs the trainer, which is not installed" in errors
    assert "pip install 'burnish-server[trainer]'" in errors
    status, _, errors = run(*given, tmp_path / "nowhere")
    assert status == 1
    assert "cannot be run: No such file or directory" in errors


def test_missing_options_are_wrong_usage(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"")
    status, _, errors = run(source)
    assert status == 2
    assert "--output" in errors
