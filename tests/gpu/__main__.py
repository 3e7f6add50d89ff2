"""Check on a CUDA machine what no CPU can show, and write docs/proof/gpu.md: `python -m tests.gpu`.

Each method's two steps on the GPU against the CPU's; 4 bits; speed and memory of a model of 8 billion parameters
against TRL, one after the other in fresh processes. What no time is left for, or what fails, the page says.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import REPOSITORY, Grid
from tests.gpu.large import SHAPES, Work
from tests.gpu.methods import DTYPES, draws_answers
from tests.trainer.samples import SAMPLES

PAGE = REPOSITORY / "docs" / "proof" / "gpu.md"
TOLERANCES = {"float32": 1e-3, "bfloat16": 3e-2}
"""How far a loss on the GPU may be from the CPU's, relative to it, or to 1 if that is smaller."""
WORKS = {
    "lora": Work("", "lora", "8B", steps=6, batch=4, characters=1024, new_tokens=0),
    "qlora": Work("", "qlora", "8B", steps=6, batch=4, characters=1024, new_tokens=0),
    "dpo": Work("", "dpo", "8B", steps=5, batch=2, characters=1024, new_tokens=0),
    "grpo": Work("", "grpo", "8B", steps=3, batch=8, characters=512, new_tokens=48),
    "ppo": Work("", "ppo", "8B", steps=3, batch=8, characters=512, new_tokens=48),
}
TITLES = {"lora": "supervised, LoRA", "qlora": "supervised, QLoRA", "dpo": "DPO", "grpo": "GRPO", "ppo": "PPO"}
NOT_IN_TRL = ("ppo",)
Found = dict[str, Any]


class Budget:
    """The seconds that are left for the whole program."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, 0 if none are."""
        return max(0.0, self._end - time.monotonic())


def run_part(module: str, given: Mapping[str, Any], budget: Budget, *, hide_gpu: bool = False) -> Found:
    """Run `python -m MODULE JSON` in a fresh process; return what it printed last, or `failed` with the reason."""
    left = budget.left()
    if left < 20:
        return {"failed": "no time was left"}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if hide_gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    print(f"{module} {json.dumps(given)[:160]}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", module, json.dumps(given)]
    try:
        child = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=left, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"it was not done within {left:.0f} s"}
    if child.returncode:
        return {"failed": (child.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    return json.loads(child.stdout.strip().splitlines()[-1])


def compare_methods(cpu: Found, gpu: Found, methods: Sequence[str]) -> tuple[Grid, list[str]]:
    """Return the table of methods, and the names of those that are not right."""
    rows: list[tuple[str, ...]] = []
    wrong: list[str] = []
    for kind in methods:
        for dtype in DTYPES:
            name = f"{kind} {dtype}"
            ours, theirs = gpu.get(name, gpu), cpu.get(name, cpu)
            difference, verdict = _judge_losses(ours, theirs, dtype, drawn=draws_answers(kind))
            wrong += [name] * (verdict not in ("yes", "runs"))
            rows.append((kind, dtype, _show_losses(theirs), _show_losses(ours), difference, verdict))
    if "supervised 4bit" in gpu:
        ours = gpu["supervised 4bit"]
        trained = ours.get("code") == 0
        wrong += [] if trained else ["supervised 4bit"]
        verdict = "runs" if trained else str(ours.get("error", ""))
        rows.append(("supervised, 4 bits", "bfloat16", "", _show_losses(ours), "", verdict))
    columns = ("method", "number format", "CPU: losses of two steps", "GPU", "difference", "equal within tolerance")
    return Grid("Two steps of each method, the same seed and rows on both devices", columns, tuple(rows)), wrong


def _judge_losses(ours: Found, theirs: Found, dtype: str, *, drawn: bool) -> tuple[str, str]:
    for side in (ours, theirs):
        if side.get("failed") or side.get("code"):
            return "", str(side.get("failed") or side.get("error"))
    pairs = list(zip(ours["losses"], theirs["losses"], strict=True))
    difference = max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
    if not all(math.isfinite(a) for a, _ in pairs):
        return "", "not a finite number"
    # In few bits the likeliest of tokens that are almost alike may be another one: then the answers differ.
    if drawn and dtype != "float32":
        return f"{difference:.1e}", "runs"
    return f"{difference:.1e}", "yes" if difference <= TOLERANCES[dtype] else "NO"


def _show_losses(side: Found) -> str:
    return ", ".join(f"{loss:.4f}" for loss in side.get("losses", ())) or "-"


def make_large_grid(found: Mapping[str, Mapping[str, Found]], shape: str) -> Grid:
    """Return the table of speed and memory."""
    rows: list[tuple[str, ...]] = []
    for kind, sides in found.items():
        for program, name in (("burnish", "Burnish"), ("trl", f"TRL {version('trl')}")):
            side = sides.get(program)
            if side is None:
                rows.append((TITLES[kind], name, "TRL has no PPO since 1.13", "", "", "", "", ""))
            elif side.get("failed"):
                rows.append((TITLES[kind], name, f"failed: {side['failed']}", "", "", "", "", ""))
            else:
                digits = {"tokens_per_second": 0, "seconds_a_step": 2, "peak_mib": 0}
                numbers = (f"{side[key]:,.{count}f}" for key, count in digits.items())
                facts = (side["attention"], side["head"], side["checkpointing"])
                rows.append((TITLES[kind], name, *numbers, *facts))
        if all(sides.get(program) and not sides[program].get("failed") for program in ("burnish", "trl")):
            ours, theirs = sides["burnish"], sides["trl"]
            ratios = [f"{ours[key] / theirs[key]:.2f}" for key in ("tokens_per_second", "seconds_a_step", "peak_mib")]
            rows.append((TITLES[kind], "ratio", *ratios, "", "", ""))
    columns = ("work", "program", "tokens/s", "s a step", "peak memory, MiB", "attention", "head", "checkpointing")
    sizes = SHAPES[shape]
    title = (
        f"A Llama of {sizes['num_hidden_layers']} layers of width {sizes['hidden_size']} and {sizes['vocab_size']:,} "
        f"tokens with random weights in bfloat16, LoRA of rank 16 on all linear layers"
    )
    return Grid(title, columns, tuple(rows))


def find_slow_paths(found: Mapping[str, Mapping[str, Found]]) -> list[str]:
    """Return what Burnish did not use on the GPU, though it should."""
    slow: list[str] = []
    for kind, sides in found.items():
        facts = sides["burnish"]
        if facts.get("failed"):
            slow.append(f"{TITLES[kind]} failed")
            continue
        wanted = {"attention": ("sdpa", "flash_attention_2"), "head": ("bfloat16",), "checkpointing": ("on",)}
        slow += [f"{TITLES[kind]}: {key} {facts[key]}" for key, good in wanted.items() if facts[key] not in good]
    return slow


def make_page(grids: Sequence[Grid], wrong: Sequence[str], hardware: str, seconds: float) -> str:
    """Return the page."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft"))
    verdict = f"Not right: {', '.join(wrong)}." if wrong else "Every method's losses are as the CPU's."
    tolerances = ", ".join(f"{dtype} {value:g}" for dtype, value in TOLERANCES.items())
    notes = (
        f"{hardware}; {packages}; {datetime.now(UTC):%Y-%m-%d}; {seconds:.0f} s in all. {verdict}",
        f"Tolerances: {tolerances}, relative to the loss, or to 1 if that is smaller. Answers are drawn almost "
        "greedily; in bfloat16 a near tie may give another answer, so that methods on their own answers only have to "
        "run there.",
        "Speed is the median of the steps behind the first; memory is the most that was allocated since the model was "
        "made.",
        "All rows have the same length, so that nothing is padding on either side.",
    )
    return "\n".join(
        [
            "# On a GPU\n",
            "Made by `make gpu` (`python -m tests.gpu`).\n",
            *(grid.markdown() for grid in grids),
            *(f"- {note}" for note in notes),
            "",
        ]
    )


def describe_hardware() -> str | None:
    """Return the GPU's name and memory, None if there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    facts = torch.cuda.get_device_properties(0)
    return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def main(arguments: Sequence[str]) -> int:
    """Run all parts; return 0 if every method was right, 1 if not, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--seconds", type=float, default=480, help="the most time that all takes (480)")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    parser.add_argument("--methods", nargs="*", default=list(SAMPLES), choices=list(SAMPLES), help="(all)")
    parser.add_argument("--works", nargs="*", default=list(WORKS), choices=list(WORKS), help="(all)")
    parser.add_argument("--dry-run", action="store_true", help="without a GPU: a tiny model, on the CPU twice")
    options = parser.parse_args(arguments)
    hardware = describe_hardware()
    if hardware is None and not options.dry_run:
        print("There is no CUDA device here: nothing was run. --dry-run tries the program on the CPU.", file=sys.stderr)
        return 2
    began, budget = time.monotonic(), Budget(options.seconds)
    given = {"methods": options.methods, "dtypes": list(DTYPES)}
    gpu = run_part("tests.gpu.methods", given, budget, hide_gpu=options.dry_run)
    cpu = run_part("tests.gpu.methods", given, budget, hide_gpu=True)
    methods, wrong = compare_methods(cpu, gpu, options.methods)
    shape = "tiny" if options.dry_run else "8B"
    found: dict[str, dict[str, Found]] = {}
    for kind in options.works:
        work = replace(WORKS[kind], shape=shape)
        if options.dry_run:
            work = replace(work, characters=64, new_tokens=min(4, work.new_tokens), steps=2)
        programs = ["burnish"] if kind in NOT_IN_TRL else ["burnish", "trl"]
        found[kind] = {
            program: run_part(
                "tests.gpu.large", asdict(replace(work, program=program)), budget, hide_gpu=options.dry_run
            )
            for program in programs
        }
    if not options.dry_run:
        wrong += find_slow_paths(found)
    grids = (methods, make_large_grid(found, shape))
    for grid in grids:
        grid.print()
    hardware = "NO GPU: a dry run on the CPU" if options.dry_run or hardware is None else hardware
    options.page.write_text(make_page(grids, wrong, hardware, time.monotonic() - began), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
