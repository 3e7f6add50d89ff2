"""Run the benchmarks and write their tables to `docs/proof`, with command, machine, versions and date."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import dataset_check, trainer_against_trl
from tests.benchmarks.measuring import REPOSITORY, Outcome
from trainer.engine.environment import describe

TARGET = REPOSITORY / "docs" / "proof"


def main() -> None:
    """Measure and write both pages; `--base` and the like go to the trainer's benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.proof", description=__doc__)
    parser.add_argument("--only", choices=["trainer", "datasets"], help="make one page only")
    options, rest = parser.parse_known_args()
    if options.only != "datasets":
        chosen = trainer_against_trl.options_parser().parse_args(rest)
        outcome = trainer_against_trl.benchmark(chosen)
        text = "# The trainer against plain TRL\n\nWhat it costs to train by Burnish instead of TRL's `SFTTrainer`.\n"
        _write("trainer.md", text, "trainer_against_trl", rest, outcome)
    if options.only != "trainer":
        own = [] if options.only is None else rest
        outcome = dataset_check.benchmark(dataset_check.options_parser().parse_args(own))
        text = "# The dataset check against plain JSON parsing\n\nHow fast an uploaded file is checked on one core.\n"
        _write("datasets.md", text, "dataset_check", own, outcome)


def _write(name: str, opening: str, module: str, arguments: list[str], outcome: Outcome) -> None:
    command = shlex.join(["python", "-m", f"tests.benchmarks.{module}", *_without_paths(arguments)])
    page = f"{opening}\n```\n{command}\n```\n\n{outcome.markdown()}\n## Where and when\n\n{machine()}"
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / name).write_text(page, encoding="utf-8")
    print(f"wrote {(TARGET / name).relative_to(REPOSITORY)}", file=sys.stderr)


def machine() -> str:
    """Describe machine, versions and date, a line each, in Markdown."""
    facts = describe()
    libraries = {**facts["libraries"], "orjson": version("orjson")}
    lines = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{facts['cpu']}, {os.cpu_count()} cores, {facts['threads']} threads used by torch",
        "processor's matrix units": _matrix_units(),
        "memory": f"{facts['memory_gib']} GiB",
        "GPU": facts["gpu"] or "none",
        "system": f"{facts['platform']}, Linux {platform.release().split('-')[0]}, Python {facts['python']}",
        "versions": ", ".join(f"{name} {number}" for name, number in libraries.items()),
    }
    return "".join(f"- {name}: {value}\n" for name, value in lines.items())


def _matrix_units() -> str:
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.exists() else []
    found = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    return ", ".join(found) or "unknown"


def _without_paths(arguments: list[str]) -> list[str]:
    """Name folders by their last part: a page is no place for one machine's paths."""
    return [Path(argument).name if "/" in argument else argument for argument in arguments]


if __name__ == "__main__":
    main()
