"""Run the benchmarks and write their tables to `docs/proof`, with command, machine, versions and date."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from tests.benchmarks import (
    chat,
    dataset_check,
    dpo_against_ppo,
    exact_answers,
    families,
    from_scratch,
    listing,
    load,
    ppo_memory,
    real_preferences,
    template_table,
    trainer_against_trl,
    uploads,
)
from tests.benchmarks.measuring import REPOSITORY, Outcome
from trainer.engine.models.environment import describe_environment

TARGET = REPOSITORY / "docs" / "proof"


@dataclass(frozen=True)
class Page:
    """One page of `docs/proof`: its benchmark and what stands above the table."""

    module: ModuleType
    title: str
    opening: str


PAGES: dict[str, Page] = {
    "trainer": Page(
        trainer_against_trl,
        "The trainer against plain TRL",
        "What it costs to train by Burnish instead of TRL's `SFTTrainer`.",
    ),
    "datasets": Page(
        dataset_check,
        "The dataset check against plain JSON parsing",
        "How fast an uploaded file is checked on one core.",
    ),
    "uploads": Page(
        uploads,
        "Large uploads",
        "What a large file costs the API: its speed, and whether memory stays flat.",
    ),
    "chat": Page(
        chat,
        "The engine for chats",
        "How fast one conversation is answered on two cores, beside plain transformers.",
    ),
    "load": Page(
        load,
        "The API under load",
        "Mixed reads and creations at fixed rates, on one machine that runs the API, the controller, the database and "
        "the load itself.",
    ),
    "listing": Page(
        listing,
        "Long lists",
        "What a page deep in a list costs: a list is read from an index, from where the page begins.",
    ),
    "exact": Page(
        exact_answers,
        "Exact answers",
        "The mathematics of the methods, where the right answer can be computed or TRL computes it too.",
    ),
    "families": Page(
        families,
        "Model families",
        "Which architectures train, method by method: families of transformers' causal language models as tiny random "
        "models. [Model families](../families.md) says what the columns mean for a job.",
    ),
    "templates": Page(
        template_table,
        "Rows on chat templates",
        "What becomes of rows of every kind on real chat templates and on templates of every shape: whether what is "
        "trained is what the assistant wrote, behind what chat sees, up to a stop.",
    ),
    "pretraining": Page(
        from_scratch,
        "Pre-training from scratch",
        "nanoGPT's CPU recipe on the characters of tinyshakespeare, run as a pre-training job of Burnish.",
    ),
    "ppo_memory": Page(
        ppo_memory, "The memory of PPO", "RLHF on one base: policy, reference, reward and value as adapters."
    ),
    "dpo_against_ppo": Page(
        dpo_against_ppo,
        "DPO against PPO",
        "One preference problem with a known reward, on both roads.\n\n![Reward against KL](dpo_against_ppo.svg)",
    ),
    "preferences": Page(
        real_preferences,
        "Real preferences",
        "SmolLM2-135M-Instruct and pairs that people published: a reward job and a DPO job.",
    ),
}


def main() -> None:
    """Measure and write the pages; further options, such as `--base`, go to the benchmark of a page made alone."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.proof", description=__doc__)
    parser.add_argument("--only", choices=list(PAGES), help="make one page only")
    options, rest = parser.parse_known_args()
    if rest and options.only is None:
        parser.error(f"{' '.join(rest)} is for one benchmark: say which page by --only")
    for name in [options.only] if options.only else PAGES:
        print(f"page {name}", file=sys.stderr, flush=True)
        write(name, PAGES[name].module.benchmark(PAGES[name].module.options_parser().parse_args(rest)), rest)


def write(name: str, outcome: Outcome, arguments: list[str]) -> None:
    """Write a page, and the plot where its benchmark draws one."""
    page = PAGES[name]
    _write(
        f"{name}.md", f"# {page.title}\n\n{page.opening}\n", page.module.__name__.rpartition(".")[2], arguments, outcome
    )
    if hasattr(page.module, "plot"):
        (TARGET / f"{name}.svg").write_text(page.module.plot(outcome.data["points"]), encoding="utf-8")


def _write(name: str, opening: str, module: str, arguments: list[str], outcome: Outcome) -> None:
    command = shlex.join(["python", "-m", f"tests.benchmarks.{module}", *_without_paths(arguments)])
    page = f"{opening}\n```\n{command}\n```\n\n{outcome.markdown()}\n## Where and when\n\n{machine()}"
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / name).write_text(page, encoding="utf-8")
    print(f"wrote {(TARGET / name).relative_to(REPOSITORY)}", file=sys.stderr)


def machine() -> str:
    """Describe machine, versions and date, a line each, in Markdown."""
    facts = describe_environment()
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
