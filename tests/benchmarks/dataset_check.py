"""Megabytes a second of the dataset check against plain `json.loads` and `orjson.loads` of every line.

The same files for all, fresh processes in turns. `make bench` runs it.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import orjson

from tests.benchmarks.measuring import (
    Grid,
    Outcome,
    Spread,
    at_least,
    in_turns,
    output_options,
    quiet_note,
    run_child,
    show,
)
from tests.benchmarks.one_check import PROGRAMS, Settings

ROW_BYTES = (400, 1300, 5700)
TEXT = """where is my parcel it should have come on Monday "today" and the café's lamp (no. 42) is broken\n"""
PHRASES = ("我的包裹在哪里？", "请告诉我订单号，我来查询。", "退款已经办理，三天内到账。")  # noqa: RUF001
DISTINCT = 2000
SEED = 7


def options_parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.dataset_check", description=__doc__)
    parser.add_argument("--megabytes", type=at_least(1), default=40, help="size of each file (40)")
    parser.add_argument("--repeats", type=at_least(3), default=5, help="runs of each program (5)")
    output_options(parser)
    return parser


def benchmark(options: argparse.Namespace) -> Outcome:
    """Write the files, run all repeats and compare."""
    with tempfile.TemporaryDirectory(prefix="burnish-benchmark-") as folder:
        files = [_write(Path(folder), size, options.megabytes * 1_000_000) for size in ROW_BYTES]
        found = in_turns(
            list(PROGRAMS),
            options.repeats,
            lambda program: run_child("tests.benchmarks.one_check", Settings(program, [str(file) for file in files])),
        )
    counts = {tuple(run["rows"]) for runs in found.values() for run in runs}
    if len(counts) != 1:
        raise SystemExit(f"the programs did not read the same rows: {counts}")
    rows = counts.pop()
    notes = _notes(found, rows)
    return Outcome((_grid(found, options), _ratios(found)), notes, {"runs": found, "notes": notes, "rows": rows})


def make_row(size: int, dice: random.Random) -> bytes:
    """Return a conversation of about `size` bytes, a third of its phrases in Chinese."""
    texts = ["", ""]
    while sum(len(text.encode()) for text in texts) < size - 110:
        phrase = dice.choice(PHRASES) if dice.random() < 0.33 else " ".join(dice.choices(TEXT.split(" "), k=8))
        texts[dice.random() < 0.6] += phrase + " "
    user, assistant = texts
    return orjson.dumps(
        {"messages": [{"role": "user", "content": user or "?"}, {"role": "assistant", "content": assistant or "!"}]}
    )


def _write(folder: Path, size: int, total: int) -> Path:
    dice = random.Random(SEED)
    block = b"".join(make_row(size, dice) + b"\n" for _ in range(DISTINCT))
    path = folder / f"{size}.jsonl"
    path.with_suffix(".warm").write_bytes(block)
    with path.open("wb") as file:
        for _ in range(max(1, round(total / len(block)))):
            file.write(block)
    return path


def _speeds(found: dict[str, list[Any]], name: str, place: int) -> Spread:
    return Spread.of([run["speeds"][place] for run in found[name]])


def _grid(found: dict[str, list[Any]], options: argparse.Namespace) -> Grid:
    columns = ("MB/s (10^6 bytes)", *(f"rows of about {size / 1000:.1f} KB" for size in ROW_BYTES), "peak memory, MiB")
    rows = [
        (
            name,
            *(_speeds(found, name, place).shown() for place in range(len(ROW_BYTES))),
            Spread.of([run["peak_rss_mib"] for run in runs]).shown(),
        )
        for name, runs in found.items()
    ]
    title = f"Files of {options.megabytes} MB on one core: median (smallest to largest) of {options.repeats} runs each"
    return Grid(title, columns, tuple(rows))


def _ratios(found: dict[str, list[Any]]) -> Grid:
    peers, ours = list(PROGRAMS)[:2], list(PROGRAMS)[2:]
    rows = [
        (
            f"{mine} / {peer}",
            *(
                f"{_speeds(found, mine, place).median / _speeds(found, peer, place).median:.2f}"
                for place in range(len(ROW_BYTES))
            ),
        )
        for mine in ours
        for peer in peers
    ]
    columns = ("ratio of the medians", *(f"rows of about {size / 1000:.1f} KB" for size in ROW_BYTES))
    return Grid("Speed as a multiple of the peer's: above 1 the check is faster", columns, tuple(rows))


def _notes(found: dict[str, list[Any]], rows: tuple[int, ...]) -> tuple[str, ...]:
    return (
        "The peers only parse. The check also cuts lines out of chunks of 1 MiB, refuses keys given twice, integers "
        "beyond 64 bits, escaped NULs and deep nesting, keeps line numbers, and in the supervised format looks at "
        "every message; it parses by orjson, so orjson.loads is its upper limit. Lines are looked at in blocks of "
        "64 KiB, and one by one where a block is not good beyond doubt: a file full of problems is slower.",
        f"The files hold {', '.join(f'{count:,}' for count in rows)} rows (English and Chinese, as UTF-8; {DISTINCT:,} "
        "distinct ones), all good, and lie in the page cache. Every program read every row.",
        "Peak memory is that of the whole process, Python and the imported packages included.",
        quiet_note(found),
    )


if __name__ == "__main__":
    chosen = options_parser().parse_args()
    show(benchmark(chosen), chosen)
