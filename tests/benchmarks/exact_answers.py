"""The tests whose answers can be computed exactly, as tables: the optimum of RLHF, and equivalence with TRL."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as Xml

from tests.benchmarks.measuring import REPOSITORY, Grid, Outcome, output_options, show

RECIPES = "tests/trainer/recipes"
HEAD = "tests/trainer/engine/scoring/test_head.py"
OPTIMUM = (
    f"{RECIPES}/dpo/test_optimum.py",
    f"{RECIPES}/ppo/test_exact_optimum.py",
    f"{RECIPES}/reward/test_recovery.py",
)
EQUIVALENCE = (
    f"{HEAD}::test_loss_and_gradients_are_trl_s",
    f"{RECIPES}/reward/test_losses.py",
    f"{RECIPES}/dpo/test_losses.py",
    f"{RECIPES}/kto/test_losses.py",
    f"{RECIPES}/grpo/test_losses.py",
)


def options_parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.exact_answers", description=__doc__)
    output_options(parser)
    return parser


def benchmark(_options: argparse.Namespace) -> Outcome:
    """Run the tests and collect what they recorded. Raises SystemExit where one fails."""
    optimum, equivalence = recorded(OPTIMUM), recorded(EQUIVALENCE)
    grids = (
        _grid("Of a world that is enumerated, from three seeds (at least 0.95 is asked for)", optimum),
        _grid("The same float32 batch (asked for: 1e-5 relative, a cosine above 0.99999)", equivalence),
    )
    notes = (
        "The share of the optimum is (J - J_start) / (J* - J_start) of J = E[r] - β KL, computed over all answers; "
        "π* ∝ π_ref exp(r/β). DPO learns from Bradley-Terry labels drawn from r, PPO asks r; r and start are the same.",
        "The reward model learns from rankings of 8 answers by a hidden reward; the pairs were in no ranking.",
        "Where the name says TRL's, the reference is TRL 1.16's trainer on the same batch; rankings of more than two "
        "responses are compared with a loop that sends each pair through the model by itself.",
        "PPO's first ratio (1 ± 1e-6), GAE against a loop, and whitening are asserted in tests/trainer/recipes/ppo.",
    )
    return Outcome(grids, notes, {"optimum": optimum, "equivalence": equivalence})


def recorded(tests: tuple[str, ...]) -> list[dict[str, str]]:
    """Run tests and return what each that recorded something said, its name first."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-o", "junit_family=xunit1", f"--junitxml={file}", *tests]
        ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise SystemExit(f"the tests failed:\n{ran.stdout[-3000:]}")
        found: list[dict[str, str]] = []
        for case in Xml.parse(file).iter("testcase"):
            said = {item.get("name", ""): item.get("value", "") for item in case.iter("property")}
            if said:
                found.append({"test": _name(case), **said})
        return found


def _name(case: Xml.Element) -> str:
    """Return `dpo: loss and gradients are TRL's [hinge]`."""
    module = case.get("classname", "")
    recipe = module.removeprefix("tests.trainer.recipes.").partition(".")[0]
    method = "supervised" if module.endswith(".test_head") else recipe
    name, bracket, rest = case.get("name", "").partition("[")
    words = name.removeprefix("test_").replace("trl_s", "TRL's").replace("_", " ")
    return f"{method}: {words}{' ' + bracket + rest if bracket else ''}"


def _grid(title: str, found: list[dict[str, str]]) -> Grid:
    columns = tuple(dict.fromkeys(name for one in found for name in one))
    return Grid(title, columns, tuple(tuple(one.get(name, "") for name in columns) for one in found))


if __name__ == "__main__":
    chosen = options_parser().parse_args()
    show(benchmark(chosen), chosen)
