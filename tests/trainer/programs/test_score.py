"""`python -m trainer.programs.score`: rankings and conversations in, the same rows with scores out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.recipes.dpo.jobs import job, message
from tests.trainer.recipes.reward.jobs import ranking, rankings, trained_reward
from tests.trainer.workdirs import chat, environment, jsonl, training_rows
from trainer.contract.result import ADAPTER_FOLDER, ExitCode
from trainer.kit.stop import StopFlag
from trainer.programs.score import main
from trainer.run import run_training_job

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def reward(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_reward(tmp_path_factory.mktemp("reward") / "job", tiny_base)


def score(base: Path, adapter: Path, folder: Path, content: bytes) -> tuple[int, list[dict[str, Any]]]:
    """Score the content; return the exit code and the rows that came out."""
    source, target = folder / "进.jsonl", folder / "出.jsonl"
    source.write_bytes(content)
    code = main(["--base", str(base), "--adapter", str(adapter), "--dtype", "float32", str(source), str(target)])
    assert sorted(path.name for path in folder.glob(".*")) == []
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()] if target.exists() else []
    return code, rows


@pytest.mark.slow
def test_rankings_and_conversations_come_back_with_scores(tiny_base: Path, reward: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [*rankings(7), ranking("你好吗?", [("我很好, 谢谢!", 1), ("不好。", 2)])]
    rows.append({**chat("你好吗?", "我很好, 谢谢!"), "id": "第一"})
    rows.append(
        {
            "input": {"messages": [message("user", "你好吗?")]},
            "responses": ["我很好, 谢谢!", message("assistant", "不好。")],
        }
    )
    code, scored = score(tiny_base, reward, tmp_path, jsonl(rows))
    assert code == ExitCode.DONE
    assert "我很好" in (tmp_path / "出.jsonl").read_text(encoding="utf-8")
    assert [{key: row[key] for key in row if key not in ("score", "scores")} for row in scored] == rows
    assert all(len(row["scores"]) == len(row["responses"]) for row in scored if "responses" in row)
    # One conversation has one score, whichever way it was written and whatever it was padded with.
    assert scored[8]["score"] == pytest.approx(scored[7]["scores"][0], abs=1e-5)
    assert scored[9]["scores"] == pytest.approx(scored[7]["scores"], abs=1e-5)
    right = [row["scores"][0] > row["scores"][1] for row in scored[:7:3]]
    assert all(right)


def test_earlier_turns_of_the_assistant_are_part_of_the_prompt(tiny_base: Path, reward: Path, tmp_path: Path) -> None:
    turns = [message("user", "Hi"), message("assistant", "Hello"), message("user", "再说")]
    rows = [
        {"input": {"messages": turns}, "responses": ["再见"]},
        {"messages": [*turns, message("assistant", "再见")]},
        chat("再说", "再见"),
    ]
    code, (ranked, whole, short) = score(tiny_base, reward, tmp_path, jsonl(rows))
    assert code == ExitCode.DONE
    assert ranked["scores"] == [pytest.approx(whole["score"], abs=1e-5)]
    assert abs(short["score"] - whole["score"]) > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{broken", "line 2: Expecting property name"),
        (b"[1]", "line 2: a row is a JSON object"),
        (b"\xff\xfe", "line 2: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "line 2: "),
        (b'{"messages": [{"role": "user", "content": "Hi"}]}', "line 2: Value error, messages need at least one"),
        (b'{"input": {"messages": [{"role": "user", "content": "Hi"}]}}', "line 2: a row needs messages, or input"),
        (
            jsonl([{"input": {"messages": [message("user", "Hi")]}, "responses": [message("user", "a")]}]),
            "line 2: a response is a message of the assistant",
        ),
        (b'{"input": {"messages": [{"role": "user", "content": "Hi"}]}, "responses": [7]}', "line 2: "),
        (b'{"messages": [{"role": "assistant", "content": "\\ud83d"}]}', "line 2: a text has half a character"),
        (jsonl([chat("Hi", "字" * 200)]), "tokens are more than the model's context of 512"),
        (jsonl([{"messages": [*chat("Hi", "a")["messages"], message("user", "b")]}]), "must end with a message of the"),
    ],
    ids=[
        "json",
        "list",
        "bytes",
        "deep",
        "no answer",
        "no responses",
        "role",
        "number",
        "surrogate",
        "long",
        "user last",
    ],
)
def test_a_broken_line_is_named_and_the_others_are_scored(
    tiny_base: Path, reward: Path, tmp_path: Path, line: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = jsonl([chat("Hi", "一")])
    code, rows = score(tiny_base, reward, tmp_path, good + line.rstrip(b"\n") + b"\n\n" + good)
    assert code == ExitCode.BAD_INPUT
    assert len(rows) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert "line 2: " in errors
    assert "2 row(s) scored, 1 line(s) left out." in errors


def test_missing_parts_are_named(
    tiny_base: Path, reward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(jsonl([chat("Hi", "一")]))
    out = str(tmp_path / "out.jsonl")
    for base, adapter, given, said in (
        (tmp_path, reward, source, "has no config.json"),
        (tiny_base, tmp_path, source, "has no adapter_config.json"),
        (tiny_base, reward, tmp_path / "none.jsonl", "none.jsonl is not a file"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["--base", str(base), "--adapter", str(adapter), str(given), out])
        assert ended.value.code == ExitCode.BAD_INPUT
        assert said in capsys.readouterr().err
    nowhere = str(tmp_path / "none" / "out.jsonl")
    assert main(["--base", str(tiny_base), "--adapter", str(reward), str(source), nowhere]) == ExitCode.FAULT
    assert "No such file or directory" in capsys.readouterr().err
    assert not Path(out).exists()


@pytest.mark.slow
def test_an_adapter_that_is_not_a_reward_model_is_refused(
    tiny_base: Path, reward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = job(tmp_path / "sft", tiny_base, "supervised", training_rows(4), hyperparameters={"n_epochs": 1})
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    code, rows = score(tiny_base, folder / ADAPTER_FOLDER, tmp_path, jsonl([chat("Hi", "一")]))
    assert (code, rows) == (ExitCode.BAD_INPUT, [])
    assert "is no reward model" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(reward, broken)
    (broken / "adapter_model.safetensors").write_bytes(b"nothing")
    code, rows = score(tiny_base, broken, tmp_path, jsonl([chat("Hi", "一")]))
    assert (code, rows) == (ExitCode.BAD_INPUT, [])
    assert "cannot be read" in capsys.readouterr().err


def test_another_base_is_refused(reward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.fixtures.tiny_model import make_tiny_model

    other = make_tiny_model(tmp_path / "other", hidden=32)
    code, rows = score(other, reward, tmp_path, jsonl([chat("Hi", "一")]))
    assert (code, rows) == (ExitCode.BAD_INPUT, [])
    assert "name the base that it was trained on" in capsys.readouterr().err


@pytest.mark.slow
def test_as_a_program(tiny_base: Path, reward: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(jsonl([chat("天气?", "很好。"), {"no": "row"}]))
    command = [sys.executable, "-m", "trainer.programs.score", "--base", tiny_base, "--adapter", reward, source, target]
    child = subprocess.run([str(part) for part in command], env=environment(), capture_output=True, timeout=120)
    assert child.returncode == ExitCode.BAD_INPUT, child.stderr.decode()
    assert b"line 2: a row needs messages" in child.stderr
    assert b"Traceback" not in child.stderr
    assert isinstance(json.loads(target.read_text(encoding="utf-8"))["score"], float)
