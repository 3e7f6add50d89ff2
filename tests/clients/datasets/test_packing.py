from __future__ import annotations

import gzip
import io
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.datasets import ROW_FORMATS, DatasetSummary, Limits, PackedChecker, check_file, open_dataset
from burnish.datasets.errors import UnreadableError
from burnish.datasets.packing import Packing, packing_of, unpack_chunks
from tests.clients.datasets.test_quick import GOOD_ROWS
from tests.fixtures.packed import PACKINGS, gzip_bomb, jsonl, parquet, parquet_bomb, table_bytes, zstd, zstd_bomb

ROWS = GOOD_ROWS["supervised"]
LINES = jsonl(ROWS)
SMALL = Limits(max_bytes=1 << 20, max_ratio=200)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def opened(data: bytes) -> tuple[Packing, bytes]:
    packing, chunks = open_dataset(io.BytesIO(data))
    return packing, b"".join(chunks)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("method", ROW_FORMATS)
def test_rows_of_every_format_come_out_of_every_packing(method: str, packing: str) -> None:
    rows = [row for row in GOOD_ROWS[method] if method != "reward" or "responses" not in row]
    found, lines = opened(PACKINGS[packing](rows))
    assert found == packing
    assert [json.loads(line) for line in lines.splitlines()] == rows
    assert check_file("a.jsonl", [lines], ROW_FORMATS[method], packing=found) == DatasetSummary(len(rows))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 500), st.sampled_from(["gzip", "zstd"])
)
def test_frames_may_follow_each_other_and_be_cut_anywhere(parts: list[bytes], size: int, packing: Packing) -> None:
    compress: Any = gzip.compress if packing == "gzip" else zstd.compress
    packed = b"".join(compress(part) for part in parts)
    assert packing_of(packed) == packing
    assert b"".join(unpack_chunks(packing, cut(packed, size), Limits())) == b"".join(parts)


def test_padding_after_gzip_and_skippable_frames_before_zstd_are_fine() -> None:
    assert opened(gzip.compress(LINES) + b"\0" * 1000) == ("gzip", LINES)
    assert opened(b"\x50\x2a\x4d\x18\x04\0\0\0\x01\x02\x03\x04" + zstd.compress(LINES)) == ("zstd", LINES)


def damaged(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :]


MANY = LINES * 1000
CHECKED = zstd.compress(MANY, options={zstd.CompressionParameter.checksum_flag: 1})
BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "gzip cut short": (lambda: gzip.compress(MANY)[:-9], "gzip data ends too early"),
    "gzip of its magic alone": (lambda: b"\x1f\x8b\x08\x00", "gzip data ends too early"),
    "gzip with a wrong checksum": (lambda: gzip.compress(MANY)[:-8] + b"\0" * 8, "gzip data is damaged"),
    "gzip with a flipped bit": (lambda: damaged(gzip.compress(MANY)), "gzip data is damaged"),
    "gzip and something else": (lambda: gzip.compress(MANY) + b"and more", "gzip data is damaged"),
    "zstd cut short": (lambda: zstd.compress(MANY)[:-9], "zstd data ends too early"),
    "zstd with a wrong checksum": (lambda: CHECKED[:-4] + b"\0\0\0\0", "zstd data is damaged"),
    "zstd and something else": (lambda: zstd.compress(MANY) + b"and more", "zstd data is damaged"),
    "zstd with a window of 128 MiB": (
        lambda: zstd.compress(b"x" * (20 << 20), options={zstd.CompressionParameter.window_log: 27}),
        "more than 8 MiB of memory",
    ),
    "a gzip bomb": (gzip_bomb, "more than 200 times"),
    "a zstd bomb": (zstd_bomb, "more than 200 times"),
    "a parquet bomb": (parquet_bomb, "more than 200 times"),
    "gzip twice": (lambda: gzip.compress(gzip.compress(LINES)), "gzip data stands where the rows should begin"),
    "parquet in zstd": (lambda: zstd.compress(parquet(ROWS)), "Parquet data stands where the rows should begin"),
    "parquet cut short": (lambda: parquet(ROWS)[:-5], "cannot be read"),
    "parquet with a broken footer": (lambda: b"PAR1" + b"\0" * 40 + b"\x20\0\0\0PAR1", "cannot be read"),
    "parquet with a column of bytes": (lambda: parquet([{"text": b"x"}]), "column text has the type binary"),
    "parquet with a time": (
        lambda: table_bytes(pa.table({"a": pa.array([1], pa.timestamp("s"))})),
        "has the type timestamp",
    ),
    "parquet with a column twice": (lambda: table_bytes(pa.table([[1], [2]], names=["a", "a"])), "the column a twice"),
    "parquet with NaN": (
        lambda: parquet([{"text": "a", "n": 1.0}, {"text": "b", "n": float("nan")}]),
        "row 2: has NaN",
    ),
    "parquet with a NUL": (lambda: parquet([{"text": "a"}, {"text": "b\0"}]), "row 2: has an escaped NUL"),
    "parquet with a large number": (
        lambda: table_bytes(pa.table({"text": pa.array([2**63], pa.uint64())})),
        "row 1: has the number 9223",
    ),
    "parquet without rows": (lambda: table_bytes(pa.table({"text": pa.array([], pa.string())})), "it has no rows"),
}
"""What makes each file, so that nobody makes it who only lists the tests, and what its problem says."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_or_made_to_hurt_is_named(name: str) -> None:
    make, reason = BROKEN[name]
    data = make()
    tracemalloc.start()
    packing, chunks = open_dataset(io.BytesIO(data))
    summary = check_file("a.jsonl", chunks, None, packing=packing)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reason in str(summary.problems[-1])
    assert peak < 100 << 20
    if packing in ("gzip", "zstd"):
        assert reason in str(sent(data, 1000).problems[-1])


def sent(data: bytes, size: int, name: str = "a.jsonl", limits: Limits | None = None) -> DatasetSummary:
    checker = PackedChecker(name, limits=limits)
    for chunk in cut(data, size):
        checker.feed(chunk)
    return checker.finish()


def test_a_limit_in_bytes_holds_for_every_packing() -> None:
    rows = [{"text": f"{number} 从前" * 40} for number in range(5000)]
    for packing in ("gzip", "zstd", "parquet"):
        _, chunks = open_dataset(io.BytesIO(PACKINGS[packing](rows)), SMALL)
        with pytest.raises(UnreadableError, match="more than 1048576 bytes"):
            for _ in chunks:
                pass
    assert "more than 1048576 bytes" in str(sent(PACKINGS["gzip"](rows), 4096, limits=SMALL).problems[0])


@pytest.mark.slow
def test_a_long_dataset_is_unpacked_in_flat_memory() -> None:
    dice = b"".join(json.dumps({"text": f"{number * 7919} 从前有座山"}).encode() + b"\n" for number in range(300_000))
    packed = zstd.compress(dice)
    del dice
    tracemalloc.start()
    assert sent(packed, 1 << 16).rows == 300_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_sent_file_is_recognised_however_its_bytes_come(size: int) -> None:
    assert sent(LINES, size).rows == len(ROWS)
    assert sent(gzip.compress(LINES), size, "a.jsonl").rows == len(ROWS)
    assert sent(zstd.compress("从前".encode()), size, "a.txt.zst") == DatasetSummary(1)
    assert sent(parquet(ROWS), size).ok
    assert "cut short" in str(sent(parquet(ROWS)[:-3], size).problems[0])
    assert "longer than the file" in str(sent(b"PAR1" + b"\xff" * 8 + b"PAR1", size).problems[0])
    assert "no row" in str(sent(b"", size).problems[0])
    assert "not JSON" in str(sent(b"{", size).problems[0])


def test_rows_of_parquet_have_numbers_of_rows() -> None:
    rows = [*ROWS, {"messages": [{"role": "robot", "content": "x"}]}]
    packing, chunks = open_dataset(io.BytesIO(parquet(rows)))
    summary = check_file("a.parquet", chunks, ROW_FORMATS["supervised"], packing=packing)
    assert str(summary.problems[0]).startswith("row 3: messages[0].role: ")


def test_a_null_of_parquet_is_not_a_key() -> None:
    answer = {"role": "assistant", "content": "好", "weight": 0}
    rows = [{"messages": [{"role": "user", "content": "嗯"}, answer, {"role": "assistant", "content": "巴黎"}]}]
    assert [json.loads(line) for line in opened(parquet(rows))[1].splitlines()] == rows


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnreadableError, match=r"pip install \"burnish\[formats\]\""):
        opened(parquet_magic())
    monkeypatch.setitem(sys.modules, "backports.zstd" if sys.version_info < (3, 14) else "compression.zstd", None)
    with pytest.raises(UnreadableError, match=r"pip install \"burnish\[formats\]\""):
        opened(b"\x28\xb5\x2f\xfd")


def parquet_magic() -> bytes:
    return b"PAR1" + b"\0" * 20 + b"PAR1"


def test_a_pipe_of_parquet_is_read(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    _, chunks = open_dataset(Pipe(parquet(ROWS)))
    assert b"".join(chunks) == LINES
