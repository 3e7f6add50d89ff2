"""What the suite found, kept where BURNISH_ABUSE_REPORT names a file; `report.py FILE` makes a page of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.abuse.attacks.base import Answers, Attack
from tests.abuse.measure import Span
from tests.abuse.memory import WITH_TORCH, Peaks
from tests.abuse.scale import FULL
from tests.abuse.tenant import WAITS, Wait
from tests.fixtures.reports import keep_line, markdown_table, read_lines, write_page

TARGET = Path(__file__).resolve().parents[2] / "docs" / "proof" / "abuse.md"
_OPENING = """# Abuse

What a stranger without a key and a hostile tenant do to the service, and what a quiet tenant notices of it. Two
processes of the API share a port (each with a soft limit of 160 open files), beside a controller, one worker and the
engine for chat, on one machine with the attacker, the quiet tenant and the database.

The quiet tenant reads files, jobs and lists 20 times a second, uploads, chats, cancels jobs and hears of it by
webhook, and trains one job after the other on a tiny model. It is measured alone first, then during each attack:

- p99 of its reads, from the time when each was due: the goal is under 500 ms;
- its longest waits: an upload, a chat's answer, a cancel with its webhook, a job from its creation to its end. The
  table has each as a multiple of the longest one before the attacks; the goal is under 3, and a wait under half a
  second counts as none;
- nothing that it asks for fails.

The peak memory is that of the largest process of API, controller (with what they start) and worker: the goal is under
400 MiB. Engine and trainers hold torch and stand beside it. Every answer to an attack must be a success or an error in
the API's form with a status of 4xx or 503, and none may be missing after 30 s.

```
BURNISH_ABUSE_REPORT=abuse.jsonl make abuse
python -m tests.abuse.report abuse.jsonl
```
"""


@dataclass(frozen=True)
class Finding:
    """One attack on one database."""

    attack: type[Attack]
    database: str
    quiet: Span
    attacked: Span
    peaks: Peaks
    answers: Answers
    audit_rows: int
    waits: Sequence[Wait]
    """The kinds of waits that were compared."""
    shortfalls: Sequence[str]

    def line(self) -> dict[str, Any]:
        """Return what is kept of it."""
        bound, all_peaks = self.peaks.bound(), self.peaks.mib
        return {
            "attack": self.attack.name,
            "by": self.attack.by,
            "description": self.attack.description,
            "database": self.database,
            "quiet_p99_ms": round(self.quiet.p99 * 1000),
            "attacked_p99_ms": round(self.attacked.p99 * 1000),
            "quiet": {kind: round(self.quiet.worst[kind], 2) for kind in self.waits},
            "attacked": {kind: round(self.attacked.worst[kind], 2) for kind in self.waits},
            "peak_mib": round(max(bound.values(), default=0.0)),
            "peaks": {role: round(peak) for role, peak in all_peaks.items()},
            "statuses": self.answers.statuses,
            "broken": self.answers.broken,
            "hung": self.answers.hung,
            "abandoned": self.answers.abandoned,
            "slowest_s": round(self.answers.slowest, 1),
            "audit_rows": self.audit_rows,
            "shortfalls": list(self.shortfalls),
            "form": "full" if FULL else "short",
        }


def keep(finding: Finding) -> None:
    """Show a finding, and keep it if a report is asked for."""
    keep_line("BURNISH_ABUSE_REPORT", finding.line())


def page(lines: Sequence[dict[str, Any]]) -> str:
    """Return the page of `docs/proof`."""
    from tests.benchmarks.proof import machine

    columns = ("attack", "database", "answers", "verdict", "quiet p99, ms", "attacked p99, ms")
    columns += (*(f"{kind}, times as long" for kind in WAITS), "peak MiB", "with torch, MiB")
    rows = [_row(line) for line in lines]
    table = markdown_table(columns, rows, right=len(WAITS) + 4)
    kinds = {line["attack"]: f"- **{line['attack']}** ({line['by']}): {line['description']}" for line in lines}
    broken = [f"- {line['attack']}, {line['database']}: {text}" for line in lines for text in line["shortfalls"]]
    fell_short = "\n".join(["\n## What fell short\n", *broken, ""]) if broken else ""
    forms = " and the ".join(sorted({line["form"] for line in lines}))
    counts = f"The numbers are of the {forms} form: `make test` runs the short one, `make abuse` the full one."
    attacks = "\n".join(kinds.values())
    ends = f"## The attacks\n\n{attacks}\n\n## Where and when\n\n{machine()}"
    return f"{_OPENING}\n{counts}\n\n{table}\n{fell_short}\n{ends}"


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    torch = max((peak for role, peak in line["peaks"].items() if role in WITH_TORCH), default=0)
    return (
        line["attack"],
        line["database"],
        _shown_answers(line),
        "held" if not line["shortfalls"] else "**fell short**",
        str(line["quiet_p99_ms"]),
        str(line["attacked_p99_ms"]),
        *(_shown_wait(line, kind) for kind in WAITS),
        str(line["peak_mib"]),
        str(torch),
    )


def _shown_answers(line: dict[str, Any]) -> str:
    counts = [f"{count:,} x {status}" for status, count in sorted(line["statuses"].items())]
    counts += [f"{line[kind]:,} {kind}" for kind in ("broken", "hung", "abandoned") if line[kind]]
    return ", ".join(counts)


def _shown_wait(line: dict[str, Any], kind: str) -> str:
    quiet, attacked = line["quiet"].get(kind), line["attacked"].get(kind)
    if not quiet or attacked is None:
        return "—"
    return f"{attacked / quiet:.1f} ({attacked:.1f} s)"


def main() -> None:
    """Write the page."""
    write_page(TARGET, page(read_lines(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
