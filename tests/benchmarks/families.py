"""Families by methods: tiny random models of each family of transformers, trained by four methods each.

One family takes some ten seconds on one core. `--results` keeps what is done, so that a run can be continued.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.measuring import Grid, Outcome, output_options, show
from trainer.programs.shell import ENVIRONMENT, hide_wandb

_CACHES = {"keys": "keys and values", "state": "a state", "none": "none: read anew"}


def options_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.families", description=__doc__)
    output_options(parser)
    parser.add_argument("--results", type=Path, help="keep results in this file, and take what it has already")
    parser.add_argument("--families", nargs="*", help="try these alone")
    return parser


def benchmark(options: argparse.Namespace) -> Outcome:
    """Try each family, and return the table."""
    os.environ.update({**ENVIRONMENT, "OMP_NUM_THREADS": "1"})
    hide_wandb()
    warnings.simplefilter("ignore")
    import torch

    from tests.trainer.family_matrix import families_to_try, try_family
    from trainer.engine.models.family_table import FAMILIES

    # The families are tried in forks, which have none of the threads of this process.
    torch.set_num_threads(1)
    found = _read_results(options.results)
    kinds = options.families or families_to_try()
    for kind in kinds:
        if kind in found:
            continue
        found[kind] = try_family(kind)
        print(f"{kind}: {found[kind]}", file=sys.stderr, flush=True)
        if options.results:
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({kind: found[kind]}) + "\n")
    outcome = _tabulate({kind: found[kind] for kind in kinds}, {n: f.refused for n, f in FAMILIES.items() if f.refused})
    if options.results is None:
        return outcome
    mixed = "The cells were collected by several runs (`--results`), between which the code was changed."
    return replace(outcome, notes=(*outcome.notes, mixed))


def _read_results(path: Path | None) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    if path is not None and path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            found |= json.loads(line)
    return found


def _tabulate(found: dict[str, dict[str, str]], refused: dict[str, str]) -> Outcome:
    from tests.fixtures.tiny_families import make_tiny_config
    from tests.trainer.family_matrix import METHODS, TRAINS, families_to_try
    from trainer.engine.models.families import describe_family
    from trainer.engine.reward.classifier import has_score_class

    rows: list[tuple[str, ...]] = []
    for kind, cells in found.items():
        config = make_tiny_config(kind)
        card = describe_family(config)
        left_out = [*card.routers, *card.experts, *(["parts for images or sound"] if card.reads_images else [])]
        rows.append(
            (
                f"`{kind}`",
                ", ".join(card.linear),
                ", ".join(left_out),
                _CACHES[card.cache],
                "transformers'" if has_score_class(config) else "Burnish's",
                *(cells.get(method, cells.get("died", cells.get("failed", "not tried"))) for method in METHODS),
            )
        )
    columns = ("family", "adapters on", "none on", "cache", "score head", *METHODS)
    tried = sum(len(cells) for cells in found.values())
    good = sum(cell == TRAINS for cells in found.values() for cell in cells.values())
    grids = (
        Grid(f"{good} of {tried} cells train: {len(found)} families, {len(METHODS)} methods", columns, tuple(rows)),
        Grid(
            "Refused when the base is added, and when a job is ordered",
            ("family", "why"),
            tuple((f"`{name}`", reason) for name, reason in sorted(refused.items())),
        ),
    )
    notes = (
        "Each model has two layers and is 64 wide, with random weights; a hybrid has one layer of each kind. No real "
        "weights were loaded for this table.",
        "`trains` means: the job ran to its end, every adapter moved, the export was loaded again and gave the trained "
        "model's outputs, and PPO was judged by the reward model of the cell beside it.",
        f"{len(found)} of the table's {len(families_to_try())} families that can be trained were tried for this page; "
        "`make test-all` tries all of them.",
        "Which layers get no adapter because their weights are read past them is in each job's preview and report.",
    )
    return Outcome(grids, notes, {"cells": found, "refused": refused})


if __name__ == "__main__":
    chosen = options_parser().parse_args()
    show(benchmark(chosen), chosen)
