"""Datasets: the row formats of every method with their checks, and converters from what people have.

Files are read as streams. The server and the command line share this package; it depends on neither.
"""

from __future__ import annotations

from burnish.datasets.absence import drop_null_keys
from burnish.datasets.base import DatasetSummary, Problem, Row, RowFormat, describe
from burnish.datasets.errors import InvalidLineError
from burnish.datasets.files import FileChecker, PackedChecker, check_file, is_text, open_dataset
from burnish.datasets.items import PROMPT_KEYS, ItemRows
from burnish.datasets.jsonl import LineChecker, check_rows, iter_rows
from burnish.datasets.labelled import LabelledRows
from burnish.datasets.packing import Limits, Packing
from burnish.datasets.pairs import PairRows
from burnish.datasets.pretraining import TextRows
from burnish.datasets.prompts import PromptRows
from burnish.datasets.rankings import RankingRows
from burnish.datasets.supervised import SupervisedRows
from burnish.datasets.text import TextChecker

__all__ = [
    "ROW_FORMATS",
    "DatasetSummary",
    "FileChecker",
    "InvalidLineError",
    "ItemRows",
    "Limits",
    "LineChecker",
    "PackedChecker",
    "Packing",
    "Problem",
    "Row",
    "RowFormat",
    "TextChecker",
    "check_file",
    "check_rows",
    "describe",
    "drop_null_keys",
    "guess_format",
    "is_text",
    "iter_rows",
    "open_dataset",
]

ROW_FORMATS: dict[str, RowFormat] = {
    "pretraining": TextRows(),
    "supervised": SupervisedRows(),
    "reward": RankingRows(),
    "dpo": PairRows("dpo"),
    "ppo": PromptRows("ppo"),
    "grpo": PromptRows("grpo"),
    "kto": LabelledRows(),
    "orpo": PairRows("orpo"),
    "reinforcement": ItemRows(),
}
"""Every row format by its name, which is the method's: a new one is a module and a line here."""

_MARKS = {
    "text": "pretraining",
    "messages": "supervised",
    "responses": "reward",
    "preferred_output": "dpo",
    "preferred_completion": "dpo",
    "label": "kto",
    "input": "ppo",
}


def guess_format(row: Row) -> RowFormat | None:
    """Return the format that a row's keys give away; `dpo` for pairs and `ppo` for prompts alone. None: no idea."""
    keys = {key for key, value in row.items() if value is not None}
    format_name = next((name for key, name in _MARKS.items() if key in keys), None)
    if format_name == "supervised" and keys - PROMPT_KEYS and not ROW_FORMATS["reinforcement"].check_row(row):
        format_name = "reinforcement"  # there is no answer, and a grader can use the other keys
    return ROW_FORMATS[format_name] if format_name else None
