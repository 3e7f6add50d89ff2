from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.datasets import (
    ROW_FORMATS,
    DatasetSummary,
    InvalidLineError,
    LineChecker,
    Problem,
    check_rows,
    describe,
    iter_rows,
)

GOOD = '{"messages":[{"role":"user","content":"你好"},{"role":"assistant","content":"您好!😀"}]}'.encode()
SUPERVISED = ROW_FORMATS["supervised"]

# (the file, the line of its only problem, a part of the reason)
BROKEN_FILES: list[tuple[bytes, int, str]] = [
    (b"", 0, "no row"),
    (b"\n \r\n\t\n", 0, "no row"),
    (GOOD + b"\n\xff\xff\n", 2, "not UTF-8 (byte 0xff at byte 1)"),
    (GOOD + b'\n{"a":"\xb0\xa1"}', 2, "not UTF-8 (byte 0xb0 at byte 7)"),
    (GOOD + b'\n{"a":"\xed\xa0\x80"}', 2, "not UTF-8"),
    (b'{"a":"\xe4\xb8', 1, "not UTF-8"),
    (b'{"a":"x\0"}', 1, "NUL byte at byte 8"),
    (b'{"a":"\\u0000"}', 1, "escaped NUL"),
    (b'{"a":{"b":["\\u0000"]}}', 1, "escaped NUL"),
    (b'{"\\u0000":1}', 1, "escaped NUL"),
    (GOOD + b"\n\xef\xbb\xbf" + GOOD, 2, "byte order mark"),
    (b"\xef\xbb\xbf", 0, "no row"),
    (b"\xef\xbb\xbf" + GOOD + b"\n{", 2, "unexpected end"),
    (GOOD.decode().encode("utf-16"), 1, "UTF-16"),
    (b"\xfe\xff" + GOOD.decode().encode("utf-16-be"), 1, "UTF-16"),
    (b"\x1f\x8b\x08\x00" + b"\n" * 30, 1, "gzip"),
    (b"PK\x03\x04" + b"\nx\n", 1, "zip"),
    (b"PAR1\n\n\x15", 1, "Parquet"),
    (GOOD + b"\nnot json", 2, "column 1"),
    (GOOD + b"\n\n\n{", 4, "unexpected end"),
    (b'{"a":"' + "中".encode() * 3 + b'" 1}', 1, "column 12"),
    (b'{"a":1}{"a":1}', 1, "column 8"),
    (b'{"a":1},', 1, "without commas between the rows"),
    (b'{"a":1,}', 1, "trailing comma is not allowed"),
    (b"{'a':1}", 1, "double quotes"),
    (b'{"a":True}', 1, "true, false and null"),
    (b'{"a":None}', 1, "true, false and null"),
    (b'{"a":NaN}', 1, "NaN and Infinity are not JSON"),
    (b'{"a":Infinity}', 1, "NaN and Infinity are not JSON"),
    (b'{"a":-Infinity}', 1, "NaN and Infinity are not JSON"),
    (b'{"a":1e999}', 1, "infinity"),
    (b'{"a":1} // note', 1, "no comments"),
    (b'{"a":"\t"}', 1, "control character"),
    (b'{"a":"\\ud83d"}', 1, "second half"),
    (b'{"a":"\\ude00"}', 1, "second half"),
    (b"[", 1, "without brackets"),
    (b'[{"a":1}]', 1, "is a list, not a JSON object"),
    (b'"text"', 1, "is a string, not a JSON object"),
    (b"12", 1, "is a number, not a JSON object"),
    (b"null", 1, "is null, not a JSON object"),
    (b"true", 1, "is true, not a JSON object"),
    (b'{"a":1,"a":2}', 1, "the key a twice"),
    (b'{"a":[{"b":{"c d":1,"e":"\\"","c d":1}}]}', 1, 'the key "c d" twice'),
    (b'{"a":"\\u0022", "b":1, "a":2}', 1, "the key a twice"),
    (b'{"\\u0061":1, "a":2}', 1, "the key a twice"),
    (b'{"a" :1, "a"\t:2}', 1, "the key a twice"),
    (b'{"a":18446744073709551616}', 1, "beyond 64 bits"),
    (b'{"a":9223372036854775808}', 1, "beyond 64 bits"),
    (b'{"a":[-9223372036854775809]}', 1, "beyond 64 bits"),
    (b'{"a":' + b"1" * 300 + b"}", 1, "beyond 64 bits"),
    (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", 1, "nested deeper than 100"),
    (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", 1, "nested deeper than 100"),
    (b'{"a":' * 5000, 1, "nested deeper than 100"),
    (GOOD + b'\n{"a":"' + b"x" * (8 << 20) + b'"}\n' + GOOD, 2, "8388616 bytes long; a row may have 8388608"),
]

GOOD_FILES = {
    "no last newline": (GOOD, 1),
    "blank lines": (b"\n\n" + GOOD + b"\n  \n" + GOOD + b"\n\n", 2),
    "carriage returns": (GOOD + b"\r\n" + GOOD + b"\r\n", 2),
    "spaces around": (b"  " + GOOD + b"\t\n", 1),
    "escaped Chinese": (json.dumps(json.loads(GOOD)).encode(), 1),
    "64 bits": (b'{"a":[9223372036854775807,-9223372036854775808]}', 1),
    "long digits in a string": (b'{"id":"123456789012345678901234567890"}', 1),
    "a long fraction": (b'{"a":0.12345678901234567890123}', 1),
    "quotes, colons and escapes in text": (rb'{"a":"\"a\": \u0022 \\u0022 \\u0000 \\","b":"\/ \u00e9"}', 1),
    "the same key in two objects": (b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}', 1),
    "100 levels": (b'{"a":' + b"[" * 99 + b"]" * 99 + b"}", 1),
    "many brackets in text": (b'{"a":"' + b"[{" * 200 + b'"}', 1),
    "a line of exactly 8 MiB": (b'{"a":"' + b"x" * ((8 << 20) - 8) + b'"}\n', 1),
}


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("case", range(len(BROKEN_FILES)))
def test_a_broken_file_gets_one_problem_at_its_line(case: int) -> None:
    data, line, reason = BROKEN_FILES[case]
    summary = check_rows([data])
    assert [problem.line for problem in summary.problems] == [line]
    assert reason in summary.problems[0].reason
    assert (summary.more_problems, summary.ok) == (0, False)
    size = 1 if len(data) < 100_000 else 65_521
    assert check_rows(cut(data, size)) == summary


@pytest.mark.parametrize("name", GOOD_FILES)
def test_a_good_file_has_no_problem(name: str) -> None:
    data, rows = GOOD_FILES[name]
    assert check_rows([data]) == DatasetSummary(rows)


def test_rows_arrive_with_their_line_numbers() -> None:
    rows: list[tuple[int, object]] = []
    data = b'\n{"n":1}\nbroken\n\n{"n":"\xe4\xb8\x80"}'
    summary = check_rows([data], on_row=lambda line, row: rows.append((line, row)))
    assert rows == [(2, {"n": 1}), (5, {"n": "一"})]
    assert (summary.rows, [problem.line for problem in summary.problems]) == (2, [3])


def test_the_first_twenty_problems_are_kept_and_the_others_counted() -> None:
    summary = check_rows([b"x\n" * 25 + GOOD])
    assert [problem.line for problem in summary.problems] == list(range(1, 21))
    assert (summary.more_problems, summary.rows) == (5, 1)


def test_one_row_cannot_crowd_out_the_others() -> None:
    bad_row = orjson.dumps({"messages": [{"role": "robot"}] * 30})
    summary = check_rows([bad_row + b"\n" + b"{}"], SUPERVISED)
    assert [problem.line for problem in summary.problems] == [1] * 5 + [2]


def test_too_few_rows_are_a_problem_of_the_file() -> None:
    assert check_rows([GOOD], min_rows=1).ok
    summary = check_rows([GOOD + b"\n" + GOOD], min_rows=10)
    assert summary.problems == (Problem(0, "it has 2 rows; at least 10 are needed"),)


def test_the_sentence_names_file_lines_and_reasons() -> None:
    problems = (Problem(2, "is empty"), Problem(7, "is odd"))
    assert describe("a.jsonl", DatasetSummary(3)) == "a.jsonl has 3 good rows"
    assert describe("a.jsonl", DatasetSummary(1)) == "a.jsonl has 1 good row"
    assert (
        describe("a.jsonl", DatasetSummary(1, problems)) == "a.jsonl has 2 problems: line 2: is empty; line 7: is odd"
    )
    assert describe("a.jsonl", DatasetSummary(1, problems, 5)).endswith("line 7: is odd; and 5 more")
    assert describe("数据.jsonl", check_rows([b""])) == (
        "数据.jsonl has 1 problem: it has no rows: write one JSON object a line"
    )


def test_a_line_of_50_mb_is_refused_in_flat_memory() -> None:
    def source() -> Iterator[bytes]:
        yield GOOD + b'\n{"messages":"'
        for _ in range(50 * 16):
            yield b"x" * (1 << 16)
        yield b'"}\n' + GOOD + b"\n"

    tracemalloc.start()
    summary = check_rows(source(), SUPERVISED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert summary.rows == 2
    assert [problem.line for problem in summary.problems] == [2]
    assert f"is {(50 << 20) + 15} bytes long" in summary.problems[0].reason
    assert peak < 20 << 20


def test_memory_is_flat_over_many_rows() -> None:
    tracemalloc.start()
    summary = check_rows(((GOOD + b"\n") * 500 for _ in range(60)), SUPERVISED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert summary == DatasetSummary(30_000)
    assert peak < 2 << 20


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_cuts_between_chunks_do_not_matter(data: st.DataObject) -> None:
    pieces = [
        GOOD,
        b"",
        b" \r",
        b'{"a":"\xff"}',
        '{"名":"数据😀"}'.encode(),
        b'{"a":1,"a":2}',
        b"y" * 300,
        b"[1]",
    ]
    whole = b"\n".join(data.draw(st.lists(st.sampled_from(pieces), max_size=12)))
    marks = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=40)))
    chunks = [whole[a:b] for a, b in zip([0, *marks], [*marks, len(whole)], strict=True)]
    assert outcome(chunks) == outcome([whole])


def outcome(chunks: list[bytes]) -> tuple[DatasetSummary, list[tuple[int, object]]]:
    rows: list[tuple[int, object]] = []
    checker = LineChecker(on_row=lambda line, row: rows.append((line, row)), max_line_bytes=200)
    for chunk in chunks:
        checker.feed(chunk)
    return checker.finish(), rows


def as_object(pairs: list[tuple[str, str]]) -> str:
    return "{" + " ,".join(f"{key} : {value}" for key, value in pairs) + "}"


KEYS = st.sampled_from(['"a"', '"b"', '"\\u0061"', '"\\u0022"', '"\\""', '"\\\\u0022"', '"中"'])
VALUES = st.recursive(
    st.sampled_from(["1", "null", '"a"', '"\\u0022"', '"\\\\"', '"\\"a\\": 1"', '"中\\u4e2d"']),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(KEYS, inner), max_size=3).map(as_object),
    ),
    max_leaves=8,
)


def has_duplicates(text: str) -> bool:
    found: list[bool] = []
    json.loads(text, object_pairs_hook=lambda pairs: found.append(len(dict(pairs)) != len(pairs)))
    return any(found)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=4).map(as_object))
def test_keys_given_twice_are_found_exactly(text: str) -> None:
    summary = check_rows([text.encode()])
    assert summary.ok is not has_duplicates(text)
    assert all("twice in one object" in problem.reason for problem in summary.problems)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer(data: bytes) -> None:
    summary = check_rows([b'{"messages":', data], SUPERVISED)
    assert summary.rows + len(summary.problems) + summary.more_problems > 0
    assert check_rows([data]) == check_rows(cut(data, 1))


def test_iter_rows_yields_line_and_row_from_any_cut() -> None:
    data = b"\n" + GOOD + b"\n\n" + GOOD
    wanted = [(2, json.loads(GOOD)), (4, json.loads(GOOD))]
    for size in (1, 7, 1000):
        assert list(iter_rows(cut(data, size))) == wanted


@pytest.mark.parametrize("line", [b"broken", b"x" * ((8 << 20) + 1), b'{"a":1,"a":1}'])
def test_iter_rows_stops_at_a_bad_line(line: bytes) -> None:
    rows = iter_rows([GOOD + b"\n" + line])
    assert next(rows)[0] == 1
    with pytest.raises(InvalidLineError, match="line 2: ") as caught:
        next(rows)
    assert caught.value.line == 2
