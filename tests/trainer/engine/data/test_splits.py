"""Preview and report say the same of a data file."""

from __future__ import annotations

from trainer.contract.job import DataFile
from trainer.engine.data.splits import Split


def test_the_report_says_what_the_preview_says_and_the_hash() -> None:
    file = DataFile(path="data/a.jsonl", filename="数据.jsonl", sha256="ab" * 32)
    lines = tuple(range(1, 2001))
    split = Split(file, ["a"] * 5, read=4005, tokens=90, trained_tokens=40, cut=lines, dropped=lines)
    preview, summary = split.preview_file().model_dump(), split.summarise_file().model_dump()
    assert (len(preview["cut_lines"]), len(preview["dropped_lines"])) == (1000, 1000)
    assert (len(summary["cut_lines"]), len(summary["dropped_lines"])) == (20, 20)
    assert summary == {**preview, "cut_lines": lines[:20], "dropped_lines": lines[:20], "sha256": "ab" * 32}
    assert (summary["filename"], summary["rows"], summary["used"], summary["cut"]) == ("数据.jsonl", 4005, 5, 2000)
