"""What the suite found, kept where BURNISH_FAULTS_REPORT names a file; `report.py FILE` makes a page of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from tests.faults.scale import FULL
from tests.fixtures.reports import keep_line, markdown_table, read_lines, write_page

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = REPOSITORY / "docs" / "proof" / "faults.md"
_OPENING = """# Faults

What was done to the service's processes and to the servers that it needs, and what came of it. Every row ended with
the same checks (`tests/faults/invariants.py`): no job is lost or there twice; each has exactly one end, one final
event, one notice of it and, if it succeeded, one artifact set, of its last attempt and with the content that an
undisturbed run would have given; each step is shown once; no attempt wrote after the next one was claimed; no blob is
left that nothing refers to; no trainer outlived its job; no answer was 500 and no log has an error that nobody
foresaw.

«Recovered after» counts from the end of the fault (of the last kill) to the end of the last job. A row is run again
by its seed, `BURNISH_FAULTS_SEED=… make faults`: kills come in the same order; at what moments of the work, depends
on the machine.

```
BURNISH_FAULTS_REPORT=faults.jsonl make faults
python -m tests.faults.report faults.jsonl
```
"""


class Report:
    """Keeps lines."""

    def add(
        self, fault: str, what: str, *, outcome: str, seed: int | None = None, recovery: float | None = None
    ) -> None:
        """Keep what was run and what came of it. `recovery` is in seconds from the end of the fault."""
        line = {"fault": fault, "what": what, "outcome": outcome, "seed": seed, "recovery": recovery}
        keep_line("BURNISH_FAULTS_REPORT", line | {"form": "full" if FULL else "short"})


def page(lines: Sequence[dict[str, Any]]) -> str:
    """Return the page of `docs/proof`: a row a line of the report, by fault, in the order in which they came."""
    from tests.benchmarks.proof import machine

    columns = ("fault", "what was run", "outcome", "recovered after, s", "seed")
    rows = [
        (line["fault"], line["what"], line["outcome"], _shown(line["recovery"]), _shown(line["seed"]))
        for line in sorted(lines, key=itemgetter("fault"))
    ]
    table = markdown_table(columns, rows, right=2)
    forms = " and the ".join(sorted({line.get("form", "short") for line in lines}))
    counts = f"The counts are of the {forms} form: `make test` runs the short one, `make faults` the full one."
    return f"{_OPENING}\n{counts}\n\n{table}\n\n## Where and when\n\n{machine()}"


def _shown(value: float | None) -> str:
    return "—" if value is None else f"{value:.0f}"


def main() -> None:
    """Write the page."""
    write_page(TARGET, page(read_lines(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
