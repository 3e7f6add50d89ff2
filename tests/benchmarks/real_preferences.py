"""A reward job and a DPO job on a real base and real pairs: better than chance on pairs that were held out?

The pairs are the shortest of `dpo_en_demo.json`, converted by the code of `burnish data convert`, a third held out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from burnish.datasets.conversion import Conversion
from tests.benchmarks.from_scratch import text_file
from tests.benchmarks.jobs import Ran, run_job
from tests.benchmarks.measuring import REPOSITORY, Grid, Outcome, at_least, output_options, show
from tests.benchmarks.trainer_against_trl import prepared_base

NAME = "dpo_en_demo.json"
LORA = {"rank": 16, "alpha": 32}


def options_parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.real_preferences", description=__doc__)
    parser.add_argument("--base", type=Path, help="a prepared base's folder")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".burnish" / "benchmarks", help="where it is kept")
    parser.add_argument("--pairs", type=at_least(30), default=150, help="how many of the shortest pairs are used (150)")
    parser.add_argument("--max-length", type=at_least(64), default=320, help="tokens of a row at most (320)")
    output_options(parser)
    return parser


def benchmark(options: argparse.Namespace) -> Outcome:
    """Run both jobs. Raises SystemExit where the data are not there."""
    base = (options.base or prepared_base(options.cache)).resolve()
    training, held_out = _pairs(options.pairs)
    common: dict[str, Any] = {"lora": LORA, "max_length": options.max_length, "batch_size": 4}
    with tempfile.TemporaryDirectory() as folder:
        print("reward job", file=sys.stderr, flush=True)
        reward = run_job(Path(folder) / "r", base, "reward", training, held_out=held_out, n_epochs=1, **common)
        print("DPO job", file=sys.stderr, flush=True)
        dpo = run_job(Path(folder) / "d", base, "dpo", training, held_out=held_out, n_epochs=1, **common)
    rows = (
        *_rows("reward", reward, ("pair_accuracy", "margin", "loss")),
        *_rows("dpo", dpo, ("implicit_accuracy", "margin", "likelihood_accuracy", "chosen_drift", "rejected_drift")),
    )
    columns = ("job", "measure", "start", "result", "difference (95%)", "rows")
    notes = tuple(f"{name}: {ran.report['verdict']['sentence']}" for name, ran in (("reward", reward), ("dpo", dpo)))
    more = (
        f"{base.name}, LoRA rank {LORA['rank']}, one epoch of {len(training)} pairs, at most {options.max_length} "
        f"tokens; {reward.seconds:.0f} s and {dpo.seconds:.0f} s on this machine. The pairs are the {options.pairs} "
        "shortest of the file's 300, every third of them held out.",
        "Chance is 0.5 for both accuracies; the model before DPO has exactly that, because its implicit rewards are 0.",
    )
    data = {"reward": reward.report["comparison"], "dpo": dpo.report["comparison"]}
    return Outcome((Grid("On pairs that were held out", columns, rows),), (*notes, *more), data)


def _pairs(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    source = text_file().with_name(NAME)
    if not source.is_file():
        raise SystemExit(f"{NAME} is not there: put it beside the repository or set BURNISH_TEST_DATA.")
    lines = list(Conversion("dpo").lines(NAME, [source.read_bytes()]))
    rows: list[dict[str, Any]] = [json.loads(line) for line in sorted(lines, key=len)[:count]]
    return [row for n, row in enumerate(rows) if n % 3], rows[::3]


def _rows(job: str, ran: Ran, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            job,
            (measure := ran.measure(name))["label"],
            _estimate(measure["base"]),
            _estimate(measure["tuned"]),
            _estimate(measure["difference"], sign="+"),
            str(measure["rows"]),
        )
        for name in names
    )


def _estimate(found: dict[str, Any], sign: str = "") -> str:
    if found["low"] is None:
        return f"{found['value']:{sign}.3f}"
    return f"{found['value']:{sign}.3f} ({found['low']:{sign}.3f} to {found['high']:{sign}.3f})"


if __name__ == "__main__":
    chosen = options_parser().parse_args()
    show(benchmark(chosen), chosen)
