from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.datasets.errors import UnreadableError
from burnish.datasets.reading import MAX_DOCUMENT_CHARACTERS, Item, read_documents, read_items


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def rows(data: bytes, size: int = 1 << 20) -> list[Item]:
    return list(read_items(cut(data, size)))


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["]", '"', "\\", '\\"', "},{", "[,", "中文", "عربي", "😀"]
)
ROWS = st.dictionaries(
    TEXTS, st.recursive(TEXTS | st.integers(-9, 9) | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(ROWS, max_size=5), st.sampled_from([None, 2]), st.booleans(), st.integers(1, 9))
def test_an_array_gives_what_json_reads(
    found: list[dict[str, Any]], indent: int | None, escaped: bool, size: int
) -> None:
    data = json.dumps(found, indent=indent, ensure_ascii=escaped).encode()
    assert [item.row for item in rows(data, size)] == found
    assert [item.row for item in rows(b"\xef\xbb\xbf \n" + data + b"\n", size)] == found


def test_items_are_named_with_their_number_and_line() -> None:
    data = b'\n[\n  {"a": 1},\n\n  {"b":\n nope},\n  3, {"c": "\xe4\xb8\xad"}\n]\n'
    for size in (1, 3, 100):
        items = rows(data, size)
        assert [item.place for item in items] == [
            "item 1 (line 3)",
            "item 2 (line 5)",
            "item 3 (line 7)",
            "item 4 (line 7)",
        ]
        assert [item.row for item in items] == [{"a": 1}, None, None, {"c": "中"}]
        assert "its line 2, column" in items[1].reason
        assert items[2].reason == "is a number, not a JSON object"


@pytest.mark.parametrize("data", [b"[]", b" [ \n ] \n", b"", b"\n\n"])
def test_nothing_gives_nothing(data: bytes) -> None:
    assert rows(data) == []


BROKEN = {
    "cut short": (b'[{"a": 1}, {"b": "]', "ends inside the JSON array, in item 2"),
    "never closed": (b'[{"a": 1}', "ends inside the JSON array, in item 1"),
    "something after it": (b'[{"a": 1}] {"b": 2}', "after the JSON array's closing bracket"),
    "another array": (b'[{"a": 1}]\n[{"b": 2}]', "after the JSON array's closing bracket"),
    "text after it": (b'[{"a": 1}] x', "after the JSON array's closing bracket"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip"),
    "UTF-16": ('[{"a": 1}]'.encode("utf-16"), "UTF-16"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_an_unreadable_rest_is_reported(name: str, size: int) -> None:
    data, reason = BROKEN[name]
    with pytest.raises(UnreadableError, match=re.escape(reason)):
        rows(data, size)


@pytest.mark.parametrize(
    ("data", "reasons"),
    [
        (b'[{"a": 1},]', ["", "is not JSON"]),
        (b'[{"a": 1} {"b": 2}]', ["is not JSON"]),
        (b'[{"a": 1}}, {"b": 2}]', ["is not JSON", ""]),
        (b'[{"a": 1, "a": 2}]', ["the key a twice"]),
        (b'[{"a": "\\ud83d"}]', ["second half"]),
        (b'[{"a": "\xff"}]', ["not UTF-8"]),
        (b"[[1]]", ["is a list, not a JSON object"]),
        (b'[{"a": "' + b"x" * (8 << 20) + b'"}, {"b": 1}]', ["bytes long; a row may have 8388608", ""]),
    ],
)
def test_a_bad_item_is_reported_and_the_others_are_read(data: bytes, reasons: list[str]) -> None:
    found = [item.reason for item in rows(data, 65_521)]
    assert [bool(reason) for reason in found] == [bool(reason) for reason in reasons]
    assert all(reason in said for reason, said in zip(reasons, found, strict=True))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"]")), st.integers(1, 9))
def test_any_bytes_get_the_same_answer_however_they_are_cut(data: bytes, size: int) -> None:
    assert outcome(b"[" + data, size) == outcome(b"[" + data, 1000)


def outcome(data: bytes, size: int) -> object:
    try:
        return [(item.row, item.reason) for item in rows(data, size)]
    except UnreadableError:
        return "unreadable"


@pytest.mark.slow
def test_an_array_of_60_mb_is_read_in_flat_memory() -> None:
    def source() -> Iterator[bytes]:
        yield b"["
        for _ in range(960):
            yield b'{"a": "' + b"x" * (1 << 16) + b'"},\n'
        yield b'{"a": 1}]'

    tracemalloc.start()
    count = sum(1 for _ in read_items(source()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 961
    assert peak < 4 << 20


def test_lines_are_read_past_bad_ones() -> None:
    items = rows(b'\xef\xbb\xbf\n{"a": 1}\nnope\n\n{"a": 2}', 3)
    assert [item.row for item in items] == [{"a": 1}, None, {"a": 2}]


def documents(data: bytes, size: int) -> list[str]:
    return [item.row["text"] for item in read_documents(cut(data, size)) if item.row]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_text_is_one_document_or_as_many_as_are_marked(size: int) -> None:
    whole = "从前有座山。\r\n\n  قصة\n"
    assert documents(whole.encode(), size) == [whole]
    assert documents(b"\xef\xbb\xbf" + whole.encode(), size) == [whole]
    marked = "一\n二\n<|endoftext|>\n\n<|endoftext|>\nعربي\n<|endoftext|>"
    assert documents(marked.encode(), size) == ["一\n二", "عربي"]


@pytest.mark.parametrize("line", ["中文 and words\n", "no line end at all "])
def test_the_pieces_of_a_long_document_put_together_are_the_document(line: str) -> None:
    text = line * (3 * MAX_DOCUMENT_CHARACTERS // len(line))
    pieces = documents(text.encode(), 65_521)
    assert "".join(pieces) == text
    assert len(pieces) > 2
    assert max(map(len, pieces)) <= MAX_DOCUMENT_CHARACTERS
    assert not line.endswith("\n") or all(piece.endswith("\n") for piece in pieces)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"a\n\xff", "line 2: is not UTF-8"), (b"a\0", "NUL"), (b"", "no text"), (b"PK\x03\x04", "zip")],
)
def test_bytes_that_are_not_text_are_reported(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        documents(data, 1)
