"""Datasets: JSON lines checked as a stream, against one module a row format."""

from __future__ import annotations

from service.datasets.base import DatasetSummary, Problem, Row, RowFormat, describe
from service.datasets.errors import InvalidLineError
from service.datasets.jsonl import LineChecker, check_rows, iter_rows
from service.datasets.supervised import SupervisedRows

__all__ = [
    "ROW_FORMATS",
    "DatasetSummary",
    "InvalidLineError",
    "LineChecker",
    "Problem",
    "Row",
    "RowFormat",
    "check_rows",
    "describe",
    "iter_rows",
]

ROW_FORMATS: dict[str, RowFormat] = {
    "supervised": SupervisedRows(),
}
"""Every row format by its name, which is the method's: a new one is a module and a line here."""
