"""One pass over dataset files by one program, in a fresh process; a child of `dataset_check`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import Bystanders, peak_mib

CHUNK = 1 << 20


@dataclass(frozen=True)
class Settings:
    """Which program reads which files."""

    program: str
    files: list[str]


def _check(path: Path, name: str | None) -> int:
    from burnish.datasets import ROW_FORMATS, check_rows

    with path.open("rb") as file:
        summary = check_rows(iter(lambda: file.read(CHUNK), b""), ROW_FORMATS[name] if name else None)
    assert summary.ok, summary.problems
    return summary.rows


def _loads(path: Path, loads: Callable[[bytes], Any]) -> int:
    rows = 0
    with path.open("rb") as file:
        for line in file:
            rows += isinstance(loads(line), dict)
    return rows


def _orjson(path: Path) -> int:
    import orjson

    return _loads(path, orjson.loads)


PROGRAMS: dict[str, Callable[[Path], int]] = {
    "json.loads a line": lambda path: _loads(path, json.loads),
    "orjson.loads a line": _orjson,
    "Burnish, JSONL only": lambda path: _check(path, None),
    "Burnish, supervised": lambda path: _check(path, "supervised"),
}


def measure(settings: Settings) -> dict[str, Any]:
    """Read every file once, the first megabytes of one beforehand so that imports are no part of the time."""
    read = PROGRAMS[settings.program]
    read(Path(settings.files[0]).with_suffix(".warm"))
    bystanders, speeds, rows = Bystanders(), list[float](), list[int]()
    for name in settings.files:
        start = time.perf_counter()
        rows.append(read(Path(name)))
        speeds.append(Path(name).stat().st_size / 1e6 / (time.perf_counter() - start))
    return {"speeds": speeds, "rows": rows, "peak_rss_mib": peak_mib(), "others_share": bystanders.share()}


if __name__ == "__main__":
    print(json.dumps(measure(Settings(**json.loads(sys.argv[1])))))
