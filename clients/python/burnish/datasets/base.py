"""What the row formats and their callers agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

Row = dict[str, Any]


class RowFormat(Protocol):
    """One format of rows, such as conversations for supervised fine-tuning."""

    @property
    def name(self) -> str:
        """The name in `ROW_FORMATS`."""
        ...

    @property
    def plain_text(self) -> bool:
        """Whether a whole `.txt` file will do, too."""
        ...

    def check_row(self, row: Row) -> list[str]:
        """Return what is wrong with a row, each entry naming its place first; [] for a good row.

        The row is any JSON object. Raises nothing.
        """
        ...

    def count_plain_strings(self, row: Row, texts: list[str]) -> int:
        """Return how many strings, keys among them, a row has that is good and in the plainest form of its format.

        The strings that may hold anything are added to `texts`. 0 for any other row: `check_row` must look at it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong on a line, counted from 1, or with the file as a whole: line 0."""

    line: int
    reason: str
    unit: str = "line"
    """`row` if the file has no lines (Parquet)."""

    def __str__(self) -> str:
        return f"{self.unit} {self.line}: {self.reason}" if self.line else self.reason


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """The outcome of a check: the number of good rows, the first problems, and how many more were counted."""

    rows: int
    problems: tuple[Problem, ...] = ()
    more_problems: int = 0
    stopped_at: int | None = None
    """The line at which the check stopped because there were so many problems; None if it read the whole file."""

    @property
    def ok(self) -> bool:
        """Whether there were no problems."""
        return not self.problems


def describe(filename: str, summary: DatasetSummary) -> str:
    """Return one sentence for people: `train.jsonl has 2 problems: line 2: …; line 7: …`."""
    count = len(summary.problems) + summary.more_problems
    if not count:
        return f"{filename} has {summary.rows} good row{'s' * (summary.rows != 1)}"
    problems = "; ".join(map(str, summary.problems))
    more = f"; and {summary.more_problems} more" if summary.more_problems else ""
    if summary.stopped_at is None:
        return f"{filename} has {count} problem{'s' * (count != 1)}: {problems}{more}"
    return (
        f"{filename} has {count} problems or more: {problems}{more}; the check stopped at "
        f"{summary.problems[0].unit} {summary.stopped_at}, so there may be others after it"
    )
