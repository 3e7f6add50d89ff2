"""What a file that was made to hurt costs: the check stops early, and says where and why."""

from __future__ import annotations

import gzip
import io
import json
import time
from collections.abc import Callable

import pyarrow as pa
import pytest

from burnish.datasets import ROW_FORMATS, DatasetSummary, PackedChecker, check_file, describe, open_dataset
from burnish.datasets.jsonl import MAX_COUNTED_PROBLEMS, check_rows
from burnish.datasets.packing import Limits, Packing, unpack_chunks
from tests.fixtures.packed import table_bytes, zstd

PACK: dict[Packing, Callable[[bytes], bytes]] = {"none": bytes, "gzip": gzip.compress, "zstd": zstd.compress}
MANY = 1 << 21
ROW = json.dumps({"messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答" * 60}]})
GOOD = (json.dumps(json.loads(ROW), ensure_ascii=False) + "\n").encode()
# (a line, given millions of times, and the reason that the check names)
TINY: dict[str, tuple[bytes, str]] = {
    "a letter": (b"x\n", "is not JSON"),
    "a character of Chinese": ("好\n".encode(), "is not JSON"),
    "an object without messages": (b"{}\n", "messages: is missing"),
    "an object without a message": (b'{"messages":[]}\n', "messages: is empty"),
    "a key twice": (b'{"a":1,"a":1}\n', "has the key a twice"),
    "a list": (b"[]\n", "the file is a JSON array"),
    "broken UTF-8": (b"\xff\n", "is not UTF-8"),
    "a large number": (b'{"a":99999999999999999999}\n', "beyond 64 bits"),
    "nothing": (b"\n", "more than 1000000 lines with less than 8 bytes"),
    "a space": (b" \n", "more than 1000000 lines with less than 8 bytes"),
}


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("name", TINY)
def test_a_flood_of_tiny_lines_costs_a_moment(name: str, packing: Packing) -> None:
    line, reason = TINY[name]
    packed = PACK[packing](line * MANY)
    before = time.process_time()
    summary = check_file(
        "a.jsonl", unpack_chunks(packing, (packed,), Limits()), ROW_FORMATS["supervised"], packing=packing
    )
    # Without the early stop each of them takes from 5 to 60 seconds.
    assert time.process_time() - before < 1.5
    assert any(reason in problem.reason for problem in summary.problems)


@pytest.mark.parametrize("packing", PACK)
def test_a_sent_file_is_not_unpacked_beyond_its_last_counted_problem(packing: Packing) -> None:
    packed = PACK[packing](b"x\n" * MANY)
    checker = PackedChecker("a.jsonl")
    before = time.process_time()
    for start in range(0, len(packed), 1 << 16):
        checker.feed(packed[start : start + (1 << 16)])
    summary = checker.finish()
    assert checker.done
    assert time.process_time() - before < 1.5
    assert (len(summary.problems), summary.more_problems) == (20, MAX_COUNTED_PROBLEMS - 20)


def test_the_sentence_says_where_the_check_stopped() -> None:
    summary = check_rows([GOOD * 7 + b"x\n" * 5000])
    assert summary.stopped_at == 7 + MAX_COUNTED_PROBLEMS + 1
    said = describe("训练.jsonl", summary)
    assert said.startswith("训练.jsonl has 1000 problems or more: line 8: ")
    assert said.endswith("and 980 more; the check stopped at line 1008, so there may be others after it")


def test_exactly_as_many_problems_as_are_counted_are_all_there_are() -> None:
    summary = check_rows([b"x\n" * MAX_COUNTED_PROBLEMS])
    assert (summary.stopped_at, summary.more_problems) == (None, 980)
    assert check_rows([b"x\n" * MAX_COUNTED_PROBLEMS + GOOD]).stopped_at == MAX_COUNTED_PROBLEMS + 1


def test_the_outcome_does_not_depend_on_how_the_bytes_come() -> None:
    data = (GOOD * 3 + b"x\n\n") * 1200
    whole = check_rows([data])
    for size in (1000, 65_521):
        assert check_rows(data[start : start + size] for start in range(0, len(data), size)) == whole


def test_more_rows_than_are_read_are_refused_with_the_bound() -> None:
    summary = check_file("a.jsonl", [GOOD * 50], None, max_rows=49)
    assert "more than 49 rows, the most that are read" in summary.problems[0].reason
    assert check_file("a.jsonl", [GOOD * 49], None, max_rows=49) == DatasetSummary(49)


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("content", [b"", "好".encode()])
def test_a_flood_of_tiny_frames_is_refused(packing: Packing, content: bytes) -> None:
    packed = PACK[packing](content) * 200_000
    before = time.process_time()
    summary = check_file(
        "a.txt", unpack_chunks(packing, (packed,), Limits()), ROW_FORMATS["pretraining"], packing=packing
    )
    assert time.process_time() - before < 1.5
    assert "more than 10000" in summary.problems[0].reason
    assert "compress it in one piece" in summary.problems[0].reason


def test_skippable_frames_count() -> None:
    packed = b"\x50\x2a\x4d\x18\0\0\0\0" * 200_000 + zstd.compress(GOOD)
    summary = check_file("a.jsonl", unpack_chunks("zstd", (packed,), Limits()), None, packing="zstd")
    assert "more than 10000 zstd frames" in summary.problems[0].reason


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_many_honest_frames_pass(packing: Packing) -> None:
    shards, blocks = PACK[packing](GOOD) * 9000, PACK[packing](GOOD * 200) * 300
    for packed, rows in ((shards, 9000), (blocks, 60_000)):
        found = check_file("a.jsonl", unpack_chunks(packing, (packed,), Limits()), None, packing=packing)
        assert found == DatasetSummary(rows)


def parquet_summary(data: bytes) -> DatasetSummary:
    packing, chunks = open_dataset(io.BytesIO(data))
    return check_file("a.parquet", chunks, ROW_FORMATS["pretraining"], packing=packing)


@pytest.mark.slow
def test_parquet_with_far_too_many_columns_is_refused() -> None:
    wide = table_bytes(pa.table({f"列{number}": ["a"] for number in range(20_000)}))
    before = time.process_time()
    assert "it has 20000 columns" in parquet_summary(wide).problems[0].reason
    assert time.process_time() - before < 3
    deep = pa.table({"a": [{f"k{number}": 1 for number in range(1001)}]})
    assert "it has 1001 columns, those inside of lists and objects counted" in str(
        parquet_summary(table_bytes(deep)).problems[0]
    )


@pytest.mark.slow
def test_parquet_with_far_too_many_row_groups_is_refused() -> None:
    data = table_bytes(pa.table({"text": ["a"] * 100_001}), row_group_size=1)
    assert "row groups" in parquet_summary(data).problems[0].reason


def test_a_footer_beyond_the_bound_is_refused_at_the_upload_already() -> None:
    footer = (17 << 20).to_bytes(4, "little")
    data = b"PAR1" + b"\0" * (17 << 20) + footer + b"PAR1"
    checker = PackedChecker("a.parquet")
    checker.feed(data)
    for problem in (checker.finish().problems[0], parquet_summary(data).problems[0]):
        assert f"has a footer of {17 << 20} bytes; it may have {16 << 20}" in problem.reason


def test_parquet_with_many_bad_rows_stops_early() -> None:
    data = table_bytes(pa.table({"a": pa.array([None] * 400_000, pa.null())}))
    before = time.process_time()
    summary = parquet_summary(data)
    assert time.process_time() - before < 3
    assert str(summary.problems[0]).startswith("row 1: text: is missing")
    assert summary.stopped_at == MAX_COUNTED_PROBLEMS + 1
    assert "the check stopped at row 1001" in describe("a.parquet", summary)


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACK)
def test_an_honest_large_file_passes(packing: Packing) -> None:
    rows = 1_200_000
    shortest = '{"text":"好"}\n'.encode()
    packed = PACK[packing](shortest * rows)
    found = check_file(
        "a.jsonl", unpack_chunks(packing, (packed,), Limits()), ROW_FORMATS["pretraining"], packing=packing
    )
    assert found == DatasetSummary(rows)
