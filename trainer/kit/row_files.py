"""Reading files of rows: every problem is named with its line."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from burnish.datasets import ROW_FORMATS, drop_null_keys
from trainer.contract.rows import AnyRow, ItemRow
from trainer.kit.errors import TrainerError

SHOWN_PROBLEMS = 20
RowT = TypeVar("RowT", bound=AnyRow)


def read_rows(path: Path, kind: type[RowT], *, filename: str, param: str) -> list[RowT]:
    """Read a JSONL file of rows of one kind; blank lines are skipped.

    Raises TrainerError (`invalid_training_file` or `invalid_validation_file`, after `param`) with the first
    twenty problems, each with its line.
    """
    rows: list[RowT] = []
    problems: list[str] = []
    code = f"invalid_{param}"
    try:
        # As bytes, so that only a newline ends a line, as in the check: within a row, a carriage return is white space.
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:  # editors on Windows put a byte order mark in front, which is no part of the row
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    _read_line(line.decode("utf-8"), number, kind, rows, problems)
    except FileNotFoundError as error:
        raise TrainerError(code, f"The file {filename} is missing from the work folder.", param=param) from error
    except UnicodeDecodeError as error:
        raise TrainerError(code, f"The file {filename} is not UTF-8: {error.reason}.", param=param) from error
    if problems:
        raise TrainerError(code, _summarise_problems(filename, problems), param=param)
    return rows


def _read_line(line: str, number: int, kind: type[RowT], rows: list[RowT], problems: list[str]) -> None:
    try:
        row = parse_row(line, kind)
    except ValueError as error:
        problems.append(f"line {number}: {error}")
    else:
        rows.append(row.model_copy(update={"line": number}))


def parse_row(line: str, kind: type[RowT]) -> RowT:
    """Turn a line into a row. Raises ValueError with the first thing that is wrong with it.

    The rules of a row stand in `burnish.datasets` alone, where the upload, the job's check and the converters have them
    too; the class of the row gives it its shape.
    """
    try:
        value: Any = json.loads(line)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    problems = ROW_FORMATS[kind.row_format].check_row(cast("dict[str, Any]", value))
    if problems:
        raise ValueError(problems[0])
    try:
        row = kind.model_validate(drop_null_keys(value))
    except ValidationError as error:
        raise ValueError(_first_reason(error)) from error
    # What a grader reads stays as it was written, its nulls among it.
    return row.model_copy(update={"item": value}) if isinstance(row, ItemRow) else row


def _first_reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def _summarise_problems(filename: str, problems: list[str]) -> str:
    first_problems = "; ".join(problems[:SHOWN_PROBLEMS])
    hidden_count = len(problems) - SHOWN_PROBLEMS
    more = f"; and {hidden_count} more" if hidden_count > 0 else ""
    return f"{filename} has {len(problems)} line(s) that are not rows of this method: {first_problems}{more}."
