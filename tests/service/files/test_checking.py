"""Checks in processes: what they cost the service, how they are bounded, and how they end."""

from __future__ import annotations

import gzip
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from burnish.datasets import DatasetSummary, Limits, Packing
from service.files import checking
from service.files.check_process import CheckRequest
from service.files.checking import CheckAbandoned, CheckProcess, UploadCheck
from service.kit.settings import Settings
from tests.fixtures.packed import parquet, zstd

LONG_NUMBERS = b'{"a":1000000000000000000}\n'
"""A good row that takes as long as any."""
GOOD = '{"text":"从前有座山"}\n'.encode()


def request(packing: Packing = "none", **fields: Any) -> CheckRequest:
    usual = CheckRequest(
        filename="a.jsonl",
        packing=packing,
        size=1 << 30,
        format_name=None,
        needs=(),
        references=(),
        limits=Limits(),
        max_line_bytes=8 << 20,
        max_rows=100_000_000,
        seconds_per_gib=200,
    )
    return replace(usual, **fields)


def check(asked: CheckRequest, data: bytes, needed: Callable[[], bool] = lambda: True) -> DatasetSummary:
    with CheckProcess(asked, needed) as process:
        process.send(data)
        return process.finish()


def sent(data: bytes, filename: str = "a.jsonl", settings: Settings | None = None) -> tuple[DatasetSummary, bool]:
    """Send a file as an upload does; return the outcome, and whether it took a process."""
    upload = UploadCheck(settings or Settings.model_validate({}), filename)
    try:
        for start in range(0, len(data), 1 << 16):
            upload.feed(data[start : start + (1 << 16)])
            if upload.needs_process():
                upload.start_process()
        return upload.finish(), upload._process is not None
    finally:
        upload.close()


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "check_process" in " ".join(child.cmdline())]


HOSTILE: dict[str, bytes] = {
    "bad lines in gzip": gzip.compress(b"x\n" * (1 << 21)),
    "bad lines of Chinese in zstd": zstd.compress("好\n".encode() * (1 << 21)),
    "empty objects in gzip": gzip.compress(b"{}\n" * (1 << 21)),
    "rows without messages": gzip.compress(b'{"messages":[]}\n' * (1 << 19)),
    "blank lines": zstd.compress(b"\n" * (30 << 20)),
    "empty frames": zstd.compress(b"") * 200_000,
    "empty members": gzip.compress(b"") * 100_000,
    "a row of numbers": b'{"a":[' + b",".join([b"0"] * 2_000_000) + b"]}\n",
    "slow rows": gzip.compress(LONG_NUMBERS * 100_000),
    "slow rows, not packed": LONG_NUMBERS * 100_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_made_to_hurt_costs_this_process_next_to_nothing(name: str) -> None:
    data = HOSTILE[name]
    before = time.process_time()
    _, in_process = sent(data)
    assert in_process
    assert time.process_time() - before < 0.3 + len(data) * 50e-9
    assert children() == []


def test_small_content_takes_no_process() -> None:
    assert sent(GOOD * 100) == (DatasetSummary(100), False)
    assert sent(gzip.compress(GOOD * 100)) == (DatasetSummary(100), False)
    assert sent(zstd.compress("从前".encode()), "a.txt.zst") == (DatasetSummary(1), False)
    summary, in_process = sent(b"")
    assert (in_process, summary.problems[0].reason) == (False, "it has no rows: write one JSON object a line")
    assert sent(parquet([{"text": "a" * 300_000}]))[1] is False


@pytest.mark.slow
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
def test_the_outcome_is_the_same_in_a_process(pack: Callable[[bytes], bytes]) -> None:
    assert sent(pack(GOOD * 20_000)) == (DatasetSummary(20_000), True)
    summary, in_process = sent(pack(GOOD * 20_000 + b'{"a":NaN}\n' + GOOD))
    assert in_process
    assert str(summary.problems[0]).startswith("line 20001: is not JSON at column 6")
    text, in_process = sent(pack("从前有座山。\n".encode() * 20_000), "故事.txt")
    assert (text, in_process) == (DatasetSummary(1), True)


def test_the_row_format_and_what_a_grader_needs_reach_the_process() -> None:
    row = '{"messages":[{"role":"user","content":"首都?"}],"答案":{"城":["巴黎"]}}\n'.encode()
    asked = request(format_name="reinforcement", needs=(("答案", "城", 0),))
    assert check(asked, row * 3) == DatasetSummary(3)
    missing = check(replace(asked, needs=(("答案", "国"),)), row)
    assert "答案.国: is missing, and the grader asks for it" in missing.problems[0].reason
    empty = check(replace(asked, references=(("答案", "城", 0),)), row.replace("巴黎".encode(), b""))
    assert "答案.城[0]: is empty, and the grader compares answers with it" in empty.problems[0].reason


@pytest.mark.slow
def test_beyond_its_processor_time_a_check_is_ended_with_a_sentence() -> None:
    flood = LONG_NUMBERS * 300_000
    summary = check(request(size=1000, seconds_per_gib=0.001, least_seconds=0.4), flood)
    assert "takes more processor time than is allowed (0.001 seconds for each GiB" in summary.problems[0].reason


@pytest.mark.slow
def test_a_parquet_file_is_ended_at_its_processor_time(tmp_path: Path) -> None:
    data = parquet([{"text": str(number)} for number in range(400_000)])
    source = tmp_path / "a.parquet"
    source.write_bytes(data)
    asked = request("parquet", size=len(data), seconds_per_gib=0.001, least_seconds=0.01)
    with source.open("rb") as file, CheckProcess(asked, lambda: True, source=file) as process:
        assert "takes more processor time" in process.finish().problems[0].reason


@pytest.mark.slow
def test_a_row_beyond_the_memory_is_named() -> None:
    line = b'{"a":[' + b'{"":0},' * 9_000_000 + b"0]}\n"
    summary = check(request(max_line_bytes=80 << 20), line)
    assert not summary.ok
    assert "memory" in summary.problems[0].reason or "breaks its check" in summary.problems[0].reason


@pytest.mark.slow
def test_an_unneeded_check_ends_while_it_works_and_while_it_waits() -> None:
    asked = [0]

    def needed() -> bool:
        asked[0] += 1
        return asked[0] < 4

    with pytest.raises(CheckAbandoned):
        check(request("gzip", size=1 << 20), gzip.compress(LONG_NUMBERS * 300_000), needed)
    asked[0] = 0
    with pytest.raises(CheckAbandoned):
        check(request(), LONG_NUMBERS * 1_000_000, needed)
    assert children() == []


def test_a_process_outlives_the_thread_that_started_it() -> None:
    begun: list[CheckProcess] = []
    thread = threading.Thread(target=lambda: begun.append(CheckProcess(request(), lambda: True)))
    thread.start()
    thread.join()
    with begun[0] as process:
        time.sleep(0.2)
        assert process.send(GOOD * 10)
        assert process.finish() == DatasetSummary(10)


def test_a_process_has_no_secret_and_no_file_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BURNISH_SECRET_KEY", "s" * 40)
    (tmp_path / "secret").write_text("s" * 40)
    with (tmp_path / "secret").open() as secret, CheckProcess(request(), lambda: True):
        os.set_inheritable(secret.fileno(), True)
        time.sleep(0.5)
        (child,) = children()
        assert not any("s" * 40 in value for value in child.environ().values())
        assert not any(opened.path == str(tmp_path / "secret") for opened in child.open_files())
        assert os.getsid(child.pid) == child.pid
    assert children() == []


def test_output_of_a_failed_program_is_not_a_problem_of_the_file() -> None:
    with pytest.raises(RuntimeError, match="KeyError"):
        check(request(format_name="unheard of"), GOOD)


def test_a_broken_process_is_a_problem_of_the_file() -> None:
    with CheckProcess(request(), lambda: True) as process:
        process._process.kill()
        assert "breaks its check" in process.finish().problems[0].reason


def test_needed_until_does_not_look_every_time() -> None:
    looks: list[int] = []
    needed = checking.NeededUntil(lambda: not looks.append(1))
    assert all(needed() for _ in range(100))
    assert len(looks) == 1
    assert not checking.NeededUntil(lambda: True, seconds=0)()
