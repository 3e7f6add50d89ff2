from __future__ import annotations

from pathlib import Path

import pytest

from trainer.contract.rows import TextRow
from trainer.kit.errors import TrainerError
from trainer.kit.row_files import read_rows

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
