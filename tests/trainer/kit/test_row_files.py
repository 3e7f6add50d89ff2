"""The trainer reads what passed the check: the same rows, under the same line numbers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.datasets import ROW_FORMATS, check_rows
from tests.fixtures.rows import GOOD, USER
from trainer.contract.rows import ChatRow, TextRow
from trainer.kit.errors import TrainerError
from trainer.kit.row_files import read_rows

GAPS = st.text(" \t\r", max_size=3)
"""White space of JSON that does not end a line."""
BLANKS = st.sampled_from(["", "\r", " \r\r", "\t", "\x0b", "\x0c "])
TEXTS = st.text(st.sampled_from("a中😀 \r\n\u2028\u2029\x85\x1c\x1e\x0b\x0c"), max_size=6)
ENDS = st.sampled_from(["\n", "\r\n", "\r\r\n", "\n\n", " \n\r\n"])


@st.composite
def rows_as_text(draw: st.DrawFn) -> str:
    """One row, with carriage returns between its tokens and other line ends, escaped or not, in its texts."""
    gap = draw(GAPS)
    separators = (f"{draw(GAPS)},{draw(GAPS)}", f"{draw(GAPS)}:{draw(GAPS)}")
    text = "x" + draw(TEXTS)
    row = {"messages": [USER | {"content": text}, GOOD | {"content": text[::-1]}]}
    return gap + json.dumps(row, ensure_ascii=draw(st.booleans()), separators=separators) + draw(GAPS)


def read_file(data: bytes, kind: Any) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(data)
        return read_rows(path, kind, filename="rows.jsonl", param="training_file")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(rows_as_text() | BLANKS, ENDS), min_size=1, max_size=6), rows_as_text(), st.booleans())
def test_what_passes_the_check_is_read_with_the_same_lines(lines: list[tuple[str, str]], last: str, ends: bool) -> None:
    data = ("".join(line + end for line, end in lines) + last + "\n" * ends).encode()
    seen: list[tuple[int, Any]] = []
    summary = check_rows([data], ROW_FORMATS["supervised"], on_row=lambda number, row: seen.append((number, row)))
    assert summary.ok
    rows = read_file(data, ChatRow)
    assert [row.line for row in rows] == [number for number, _ in seen]
    assert [[message.text for message in row.messages] for row in rows] == [
        [message["content"] for message in row["messages"]] for _, row in seen
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(rows_as_text() | BLANKS | TEXTS | st.just("{}"), ENDS), min_size=1, max_size=6))
def test_what_the_trainer_refuses_has_the_line_that_the_check_names(lines: list[tuple[str, str]]) -> None:
    data = "".join(line + end for line, end in lines).encode()
    summary = check_rows([data], ROW_FORMATS["supervised"])
    if summary.ok:
        assert len(read_file(data, ChatRow)) == summary.rows
    elif summary.problems[0].line:
        with pytest.raises(TrainerError) as refused:
            read_file(data, ChatRow)
        assert f": line {summary.problems[0].line}: " in str(refused.value)


def test_a_carriage_return_between_two_tokens_is_white_space() -> None:
    data = '{"text":\r"从前"}\r\n\r\n{"text": "قصة"\r}\n'.encode()
    assert check_rows([data], ROW_FORMATS["pretraining"]).rows == 2
    assert [(row.line, row.text) for row in read_file(data, TextRow)] == [(1, "从前"), (3, "قصة")]


ROWS = '{"text": "从前有座山"}\n\n{"text": "山里有座庙"}\n'.encode()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(mark + ROWS)
    rows = read_rows(path, TextRow, filename="训练", param="training_file")
    assert [(row.line, row.text) for row in rows] == [(1, "从前有座山"), (3, "山里有座庙")]


def test_a_mark_on_a_later_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(ROWS + b"\xef\xbb\xbf" + ROWS)
    with pytest.raises(TrainerError, match=r"训练.*line 4"):
        read_rows(path, TextRow, filename="训练", param="training_file")
