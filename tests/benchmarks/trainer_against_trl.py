"""Tokens a second and peak memory of Burnish's trainer against plain TRL with PEFT, on the same work.

Same base, rows, LoRA, batch, learning rates, dtype and steps; fresh processes in turns. `make bench` runs it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from service.catalog import SourceMissing, load_catalog, locate_source
from tests.benchmarks.measuring import (
    REPOSITORY,
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
from tests.benchmarks.one_training import PROGRAMS, Settings
from trainer.engine.models.dtype import choose_dtype
from trainer.engine.models.load import DTYPES, load_config

BASE = "smollm2-135m-instruct"
DATA = REPOSITORY / "examples" / "ticket_triage"
LABELS = {"burnish": "Burnish", "trl": f"TRL {version('trl')}"}


def options_parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.trainer_against_trl", description=__doc__)
    parser.add_argument("--base", type=Path, help=f"a prepared base's folder; otherwise {BASE} is prepared")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".burnish" / "benchmarks", help="where it is kept")
    parser.add_argument("--steps", type=at_least(2), default=16, help="optimizer steps (16)")
    parser.add_argument("--batch", type=at_least(1), default=4, help="rows a step (4)")
    parser.add_argument("--repeats", type=at_least(3), default=3, help="runs of each program (3)")
    parser.add_argument("--dtype", choices=["auto", *DTYPES], default="auto", help="auto is what a job would choose")
    output_options(parser)
    return parser


def benchmark(options: argparse.Namespace) -> Outcome:
    """Run all repeats and compare."""
    base = (options.base or prepared_base(options.cache)).resolve()
    common = Settings(
        program="",
        base=str(base),
        train=str(DATA / "train.jsonl"),
        held_out=str(DATA / "validation.jsonl"),
        held_out_rows=16,
        steps=options.steps,
        batch=options.batch,
        dtype=choose_dtype(options.dtype, load_config(base)).dtype,
        rank=16,
        alpha=32.0,
        seed=7,
    )
    _check_rows(common)
    found = in_turns(
        list(PROGRAMS),
        options.repeats,
        lambda program: run_child("tests.benchmarks.one_training", replace(common, program=program)),
    )
    notes = _notes(found, common)
    return Outcome((_grid(found, common, base),), notes, {"runs": found, "notes": notes})


def prepared_base(cache: Path) -> Path:
    """Prepare the catalog's small base once, as a worker does. Raises SystemExit with the reason."""
    target = cache / BASE
    if (target / "base.json").is_file():
        return target
    entry = load_catalog(None).find_base(BASE)
    assert entry is not None
    cache.mkdir(parents=True, exist_ok=True)
    source = cache / "source.json"
    try:
        source.write_text(json.dumps(locate_source(entry.source)), encoding="utf-8")
    except SourceMissing as error:
        raise SystemExit(str(error)) from error
    print(f"Preparing {BASE} once, in {target} …", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "trainer.programs.prepare", str(source), str(target)]
    if code := subprocess.run(command, cwd=REPOSITORY, check=False).returncode:
        raise SystemExit(code)
    return target


def _check_rows(settings: Settings) -> None:
    there = sum(1 for line in Path(settings.train).read_text(encoding="utf-8").splitlines() if line.strip())
    if settings.rows > there:
        raise SystemExit(f"{settings.steps} steps of {settings.batch} rows need {settings.rows}; there are {there}.")


def _grid(found: dict[str, list[Any]], settings: Settings, base: Path) -> Grid:
    memory = "peak_gpu_mib" if torch.cuda.is_available() else "peak_rss_mib"
    columns = {
        "tokens/s": ("tokens_per_second", 1),
        "training, s": ("seconds", 1),
        "before the first step, s": ("seconds_before_first_step", 1),
        "peak GPU memory, MiB" if torch.cuda.is_available() else "peak memory, MiB": (memory, 0),
        "held-out loss before": ("held_out_loss_before", 4),
        "held-out loss after": ("held_out_loss", 4),
    }
    rows = [
        (LABELS[name], *(Spread.of([run[key] for run in runs]).shown(digits) for key, digits in columns.values()))
        for name, runs in found.items()
    ]
    ratios = [f"{_ratio(found, key):.2f}" for key, _ in columns.values()]
    title = (
        f"{settings.steps} steps of {settings.batch} rows, LoRA rank {settings.rank} on all linear layers, "
        f"{settings.dtype}, {_name(base)}, on the {'GPU' if torch.cuda.is_available() else 'CPU'}: "
        f"median (smallest to largest) of {len(found['trl'])} runs each"
    )
    return Grid(title, ("", *columns), (*rows, ("ratio Burnish / TRL", *ratios)))


def _notes(found: dict[str, list[Any]], settings: Settings) -> tuple[str, ...]:
    ours, theirs = found["burnish"][0], found["trl"][0]
    speed = _ratio(found, "tokens_per_second")
    by_round = ", ".join(
        f"{a['tokens_per_second'] / b['tokens_per_second']:.2f}"
        for a, b in zip(found["burnish"], found["trl"], strict=True)
    )
    return (
        f"Burnish trains at {speed:.2f} times TRL's tokens a second (by round: {by_round}) and takes "
        f"{_ratio(found, 'seconds_before_first_step'):.2f} times as long from process start to the first step.",
        f"Both take {ours['steps']} and {theirs['steps']} steps over {ours['tokens']:,} and {theirs['tokens']:,} "
        f"tokens of {settings.rows} rows, each row once, and train {ours['trainable_parameters']:,} and "
        f"{theirs['trainable_parameters']:,} parameters.",
        f"Tokens/s leaves padding out. With padding the passes hold {ours['places']:,} and {theirs['places']:,} "
        "places: Burnish puts rows of similar length together, TRL shuffles, so the order of rows differs.",
        f"The loss is on {ours['trained_tokens']:,} and {theirs['trained_tokens']:,} tokens: TRL also trains the line "
        "break that the chat template writes after the answer's end token.",
        "On a CPU Burnish computes the vocabulary's scores for the trained tokens alone, TRL for every place; on a GPU "
        "both use TRL's fused head.",
        f"The held-out loss is over the same {settings.held_out_rows} rows and tokens for both, scored by Burnish "
        "without and with the adapter. The time and the memory leave it out.",
        "TRL has its own defaults but for what makes the work the same: number format without autocast, learning rate, "
        "schedule, no cut, and activation checkpointing off on a CPU as Burnish has it (TRL's default is on). "
        "Burnish's loop also writes its event a step, TRL's logs a step.",
        quiet_note(found),
    )


def _ratio(found: dict[str, list[Any]], key: str) -> float:
    ours, theirs = (Spread.of([run[key] for run in found[name]]).median for name in ("burnish", "trl"))
    return ours / theirs


def _name(base: Path) -> str:
    config = load_config(base).get_text_config()
    prepared_here = base.name == BASE
    return (
        BASE
        if prepared_here
        else f"a {config.num_hidden_layers}-layer {config.model_type} of width {config.hidden_size}"
    )


if __name__ == "__main__":
    chosen = options_parser().parse_args()
    show(benchmark(chosen), chosen)
