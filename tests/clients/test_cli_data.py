from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from burnish.cli import main
from tests.clients.datasets.test_quick import GOOD_ROWS
from tests.fixtures.packed import PACKINGS

Run = Callable[..., tuple[int, str, str]]
ROW = {"prompt": "首都?", "chosen": "باريس 😀", "rejected": "里昂"}
PAIR = {
    "input": {"messages": [{"role": "user", "content": "首都?"}]},
    "preferred_output": [{"role": "assistant", "content": "باريس 😀"}],
    "non_preferred_output": [{"role": "assistant", "content": "里昂"}],
}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `burnish data`; gives the exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        return (int(main(["data", *map(str, arguments)])), *capfd.readouterr())

    return run


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


def test_a_good_file_is_said_to_be_good(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "数据.jsonl", PAIR, PAIR)
    assert run("check", path) == (0, "数据.jsonl has 2 good rows for dpo.\n", "")
    assert run("check", path, "--method", "reward") == (0, "数据.jsonl has 2 good rows for reward.\n", "")
    text = tmp_path / "a.txt"
    text.write_text("从前", encoding="utf-8")
    assert run("check", text) == (0, "a.txt is good text for pretraining.\n", "")


def test_problems_come_as_a_table_and_exit_1(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", PAIR, PAIR | {"input": 1}, *[PAIR | {"label": 1}] * 30)
    status, out, _ = run("check", path)
    assert status == 1
    lines = out.splitlines()
    assert lines[0] == "a.jsonl has 31 problems for dpo:"
    assert lines[2].rstrip().split(maxsplit=1) == [
        "2",
        "input: must be an object with the prompt's messages, not a number",
    ]
    assert lines[-1] == "and 11 more"
    status, out, _ = run("check", path, "--json")
    assert status == 1
    told = json.loads(out)
    assert (told["filename"], told["method"], told["rows"], told["more_problems"]) == ("a.jsonl", "dpo", 1, 11)
    assert told["problems"][0]["line"] == 2


def test_text_for_another_method_is_a_problem(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    status, out, _ = run("check", path, "--method", "dpo")
    assert status == 1
    assert "plain text, which only pretraining reads; dpo needs .jsonl rows" in out


@pytest.mark.parametrize(("name", "content"), [("empty.jsonl", b""), ("broken.jsonl", b"{"), ("utf.txt", b"\xff")])
def test_a_file_without_a_good_row_is_checked_all_the_same(run: Run, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    status, out, _ = run("check", path)
    assert status == 1
    assert f"{name} has 1 problem for" in out


@pytest.mark.parametrize("name", ["训练", "a.json", "A.JSONL", "a.csv"])
def test_the_content_decides_whatever_the_name(run: Run, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, PAIR)
    assert run("check", path) == (0, f"{name} has 1 good row for dpo.\n", "")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert run("check", path) == (0, f"{name} has 1 good row for dpo.\n", "")


def test_a_file_that_is_not_a_dataset_is_reported(run: Run, tmp_path: Path) -> None:
    status, _, err = run("check", write(tmp_path / "a.jsonl", {"问": 1}))
    assert status == 1
    assert "no method has rows with the keys 问. Name one with --method" in err
    assert run("check", tmp_path / "none.jsonl")[0] == 2


def test_a_pipe_is_checked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("check", "-")[0] == 2
    standard_input(monkeypatch, json.dumps(PAIR).encode())
    assert run("check", "-", "--method", "dpo") == (0, "standard input has 1 good row for dpo.\n", "")


def test_conversion_writes_a_file_and_counts(run: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "a.json", tmp_path / "b.jsonl"
    source.write_text(json.dumps([ROW, ROW | {"chosen": "里昂"}, ROW], ensure_ascii=False), encoding="utf-8")
    status, out, err = run("convert", source, "--to", "dpo", "-o", target)
    assert (status, out) == (0, "")
    refused, summary = err.splitlines()
    assert refused.startswith("item 2 (line 1): preferred_output and non_preferred_output: are the same")
    assert summary == f"Wrote 2 rows for dpo to {target}: 3 rows of pairs in a.json, 1 could not be converted."
    assert target.read_bytes() == (json.dumps(PAIR, ensure_ascii=False, separators=(",", ":")) + "\n").encode() * 2
    assert run("check", target)[0] == 0


def test_strict_writes_nothing_where_a_row_is_refused(run: Run, tmp_path: Path) -> None:
    source, target = write(tmp_path / "a.jsonl", ROW, {"prompt": 1}), tmp_path / "out" / "b.jsonl"
    target.parent.mkdir()
    target.write_text("old")
    status, _, err = run("convert", source, "--to", "dpo", "--strict", "-o", target)
    assert status == 1
    assert "line 2: is not a row of pairs: its keys are prompt" in err
    assert "Error: Wrote nothing: 2 rows of pairs in a.jsonl, 1 could not be converted." in err
    assert [(path.name, path.read_text()) for path in target.parent.iterdir()] == [("b.jsonl", "old")]


@pytest.mark.parametrize(
    "content", [b"", b"[", b'[{"prompt": "a", "chosen": "b", "rejected": "c"}, ', b'{"x": 1}', b"\x1f\x8b"]
)
def test_never_is_half_a_file_left(run: Run, tmp_path: Path, content: bytes) -> None:
    source, target = tmp_path / "a.jsonl", tmp_path / "out" / "b.jsonl"
    target.parent.mkdir()
    source.write_bytes(content)
    status, _, err = run("convert", source, "--to", "dpo", "-o", target)
    assert status == 1
    assert err.startswith("Error: ")
    assert list(target.parent.iterdir()) == []


def test_a_file_may_become_its_own_conversion(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROW)
    assert run("convert", path, "--to", "dpo", "--from", "pairs", "-o", path)[0] == 0
    assert json.loads(path.read_text(encoding="utf-8")) == PAIR


def test_an_unwritable_path_is_reported(run: Run, tmp_path: Path) -> None:
    status, _, err = run(
        "convert", write(tmp_path / "a.jsonl", ROW), "--to", "dpo", "-o", tmp_path / "none" / "b.jsonl"
    )
    assert status == 1
    assert "No such file or directory" in err


def test_pipes_go_in_and_out() -> None:
    command = [sys.executable, "-m", "burnish", "data", "convert", "-", "--to", "dpo", "-o", "-"]
    data = json.dumps([ROW], ensure_ascii=False).encode()
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    assert json.loads(done.stdout) == PAIR
    assert done.stderr.decode() == "Wrote 1 row for dpo: 1 row of pairs in standard input.\n"


def test_a_large_file_shows_a_bar_on_a_terminal_only(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"words and words\n" * (9 << 16))
    command = [sys.executable, "-m", "burnish", "data", "check", str(path)]
    plain = subprocess.run(command, capture_output=True, check=True)
    assert plain.stderr == b""
    near, far = pty.openpty()
    with subprocess.Popen(
        command, stderr=far, stdout=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm"}
    ) as process:
        os.close(far)
        shown = b""
        try:
            while piece := os.read(near, 4096):
                shown += piece
        except OSError:  # the other end is closed
            pass
        assert process.wait() == 0
    os.close(near)
    assert b"a.txt" in shown
    assert b"MB" in shown


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_files_are_checked_and_converted(run: Run, tmp_path: Path, packing: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(PACKINGS[packing](GOOD_ROWS["dpo"]))
    assert run("check", path) == (0, "a.jsonl has 2 good rows for dpo.\n", "")
    path.write_bytes(PACKINGS[packing]([{"instruction": "法国的首都?", "input": "", "output": "巴黎"}] * 3))
    status, _, err = run("convert", path, "--to", "supervised", "-o", tmp_path / "b.jsonl")
    assert status == 0, err
    assert len((tmp_path / "b.jsonl").read_bytes().splitlines()) == 3


def test_problems_of_parquet_are_reported_by_row(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(PACKINGS["parquet"]([*GOOD_ROWS["supervised"], {"messages": [{"role": "用户", "content": "x"}]}]))
    status, out, _ = run("check", path)
    assert status == 1
    assert out.splitlines()[1].split() == ["row", "problem"]
    assert out.splitlines()[2].startswith("3 ")


def test_a_file_that_cannot_be_unpacked_is_one_sentence(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00")
    status, out, _ = run("check", path)
    assert status == 1
    assert "the gzip data ends too early" in out
    status, _, err = run("convert", path, "--to", "supervised", "-o", tmp_path / "b.jsonl")
    assert status == 1
    assert "the gzip data ends too early" in err
    assert not (tmp_path / "b.jsonl").exists()
