from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.datasets import ROW_FORMATS, DatasetSummary, TextChecker, check_file, describe

TEXT = "从前有座山,\r\nقصة قديمة\n😀 e\u0301\n"

BROKEN: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 0, "it has no text"),
    "blank": (b" \n\t\r\n", 0, "it has no text"),
    "not UTF-8": (TEXT.encode() + b"\xb0\xa1", 4, "is not UTF-8 (byte 0xb0)"),
    "cut in a character": (b"x\n" + "山".encode()[:2], 2, "is not UTF-8 (byte 0xe5)"),
    "a surrogate": (b"\xed\xa0\x80", 1, "is not UTF-8"),
    "a NUL": (b"a\nb\0c", 2, "has a NUL byte"),
    "UTF-16": (TEXT.encode("utf-16"), 0, "UTF-16"),
    "a byte order mark alone": (b"\xef\xbb\xbf\n", 0, "it has no text"),
    "gzip": (b"\x1f\x8b\x08\x00\x00", 0, "gzip"),
    "an office document": (b"PK\x03\x04\x14", 0, "office document"),
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3", 0, "PDF"),
    "an image": (b"\x89PNG\r\n\x1a\n\0", 0, "image"),
    "a database": (b"SQLite format 3\0\x10", 0, "SQLite"),
}


def checked(data: bytes, size: int) -> DatasetSummary:
    checker = TextChecker()
    for start in range(0, len(data), size):
        checker.feed(data[start : start + size])
    return checker.finish()


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
def test_a_broken_text_gets_one_sentence_however_it_is_cut(name: str, size: int) -> None:
    data, line, reason = BROKEN[name]
    (problem,) = checked(data, size).problems
    assert problem.line == line
    assert reason in problem.reason


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_characters="\0\ufeff", codec="utf-8"), min_size=1), st.integers(1, 9))
def test_characters_that_fall_between_chunks_are_whole(text: str, size: int) -> None:
    assert checked(("x" + text).encode(), size) == DatasetSummary(1)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.integers(1, 9))
def test_any_bytes_are_judged_as_python_decodes_them(data: bytes, size: int) -> None:
    data = b"x" + data
    try:
        good = "\0" not in data.decode()
    except UnicodeDecodeError:
        good = False
    assert checked(data, size).ok is good


def test_only_pretraining_reads_text() -> None:
    assert check_file("故事.txt", [TEXT.encode()], ROW_FORMATS["pretraining"]) == DatasetSummary(1)
    for method in ROW_FORMATS.keys() - {"pretraining"}:
        summary = check_file("故事.txt", [TEXT.encode()], ROW_FORMATS[method])
        assert describe("故事.txt", summary) == (
            f"故事.txt has 1 problem: it is plain text, which only pretraining reads; {method} needs .jsonl rows"
        )


def test_pretraining_reads_rows_too() -> None:
    row = '{"text": "山"}\n'.encode()
    assert check_file("a.jsonl", [row, row], ROW_FORMATS["pretraining"]) == DatasetSummary(2)
    assert not check_file("a.jsonl", [b'{"messages": []}'], ROW_FORMATS["pretraining"]).ok
    assert not check_file("a.jsonl", [b"x" * 50], ROW_FORMATS["pretraining"], max_line_bytes=20).ok
