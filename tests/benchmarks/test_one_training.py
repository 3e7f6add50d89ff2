"""What the benchmark counts: each program takes one step on two rows, and the numbers are known before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

_PROGRAMS = ("burnish", "trl")
_SHORT, _LONG = "No.", "No, no, no, no, no, no, no, no."


def _measure_step(program: str, base: Path, folder: Path, answers: tuple[str, str]) -> dict[str, Any]:
    """Train one step of two rows that differ in their answers alone."""
    # TRL takes seconds to import, which a process that only lists the tests need not spend.
    from tests.benchmarks.one_training import PROGRAMS, Settings, measure

    assert tuple(PROGRAMS) == _PROGRAMS
    folder.mkdir()
    path = folder / "rows.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": answer}]}
        for answer in answers
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = Settings(
        program=program,
        base=str(base),
        train=str(path),
        held_out=str(path),
        held_out_rows=2,
        steps=1,
        batch=2,
        rank=4,
        alpha=8.0,
        dtype="float32",
        seed=1,
    )
    return measure(settings, folder)


@pytest.mark.slow
@pytest.mark.parametrize("program", _PROGRAMS)
@pytest.mark.filterwarnings("ignore")  # TRL's own
def test_the_places_of_all_passes_are_counted_with_their_padding(program: str, tiny_base: Path, tmp_path: Path) -> None:
    alike = _measure_step(program, tiny_base, tmp_path / "alike", (_LONG, _LONG))
    padded = _measure_step(program, tiny_base, tmp_path / "padded", (_SHORT, _LONG))
    assert (alike["steps"], padded["steps"]) == (1, 1)
    assert alike["places"] == alike["tokens"], "rows of one length hold no padding"
    assert padded["places"] == alike["places"], "the short row is as long as the other with its padding"
    assert padded["tokens"] < padded["places"]
