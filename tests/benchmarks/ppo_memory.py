"""The peak memory of a PPO job, with a reward model, against the supervised job of the same batch and length.

With `--trl PYTHON`, the interpreter of an environment that has TRL 1.12, its PPOTrainer does the same work there:
`python -m venv E; E/bin/pip install torch==2.13.0 trl==1.12.0 peft transformers`. Each run is a fresh process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.jobs import Ran, run_job, watched
from tests.benchmarks.measuring import REPOSITORY, Grid, Outcome, Spread, at_least, in_turns, output_options, show
from tests.benchmarks.trainer_against_trl import prepared_base
from trainer.engine.models.dtype import choose_dtype
from trainer.engine.models.load import load_config

BATCH, NEW_TOKENS, ROLLOUT = 4, 64, 8
LORA = {"rank": 16, "alpha": 32}
GOAL, TRL_GOAL = 1.3, 2.5
# About 64 tokens, so that prompt and answer come to 128.
QUESTION = (
    "Here is a list of things that people keep in a kitchen: pots, pans, knives, spoons, forks, plates, cups, bowls, "
    "towels, salt, pepper, oil, flour, sugar, rice. Number {}: say at length what each of them is good for."
)
ANSWER = "A pot is good for soup and for stew, a pan for frying, a knife for cutting, and a spoon for stirring. " * 3


def options_parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ppo_memory", description=__doc__)
    parser.add_argument("--base", type=Path, help="a prepared base's folder")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".burnish" / "benchmarks", help="where it is kept")
    parser.add_argument("--repeats", type=at_least(3), default=3, help="runs of each program (3)")
    parser.add_argument("--trl", type=Path, metavar="PYTHON", help="the interpreter of an environment with TRL 1.12")
    output_options(parser)
    return parser


def benchmark(options: argparse.Namespace) -> Outcome:
    """Run all repeats in turns and compare the peaks."""
    base = (options.base or prepared_base(options.cache)).resolve()
    dtype = choose_dtype("auto", load_config(base)).dtype
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reward = run_job(folder / "reward", base, "reward", _rankings(), n_epochs=1, batch_size=1, lora=LORA).adapter
        count = 0

        def measure(program: str) -> dict[str, Any]:
            nonlocal count
            count += 1
            place = folder / f"{program}-{count}"
            if program.startswith("trl"):
                return _trl(options.trl, base, place, dtype, LORA if program == "trl_lora" else None)
            ran = _ppo(place, base, reward, dtype) if program == "ppo" else _on_rows(place, base, program, dtype)
            return {"peak_mib": ran.peak_mib, "seconds": ran.seconds}

        programs = ["supervised", "dpo", "ppo", *(["trl_lora", "trl_full"] if options.trl else [])]
        found = in_turns(programs, options.repeats, measure)
    return Outcome((_grid(found),), _notes(found, base.name, dtype, options), {"runs": found})


def _on_rows(place: Path, base: Path, method: str, dtype: str) -> Ran:
    answer = {"role": "assistant", "content": ANSWER}
    if method == "supervised":
        rows: list[dict[str, Any]] = [{"messages": [_user(number), answer]} for number in range(ROLLOUT)]
        return run_job(place, base, method, rows, n_epochs=2, **_common(dtype))
    other = {"role": "assistant", "content": ANSWER.replace("pot", "jug")}
    rows = [
        {"input": {"messages": [_user(number)]}, "preferred_output": [answer], "non_preferred_output": [other]}
        for number in range(ROLLOUT)
    ]
    # A pair is two rows of a pass.
    return run_job(place, base, method, rows, n_epochs=2, **{**_common(dtype), "batch_size": BATCH // 2})


def _ppo(place: Path, base: Path, reward: Path, dtype: str) -> Ran:
    rows = [{"input": {"messages": [_user(number)]}} for number in range(ROLLOUT)]
    own = {"reward": {"model": "ft:reward"}, "iterations": 1, "ppo_epochs": 2, "rollout_prompts": ROLLOUT}
    return run_job(place, base, "ppo", rows, reward_model=reward, max_new_tokens=NEW_TOKENS, **own, **_common(dtype))


def _common(dtype: str) -> dict[str, Any]:
    return {"batch_size": BATCH, "lora": LORA, "dtype": dtype}


def _trl(python: Path, base: Path, place: Path, dtype: str, lora: dict[str, int] | None) -> dict[str, Any]:
    place.mkdir()
    settings = {
        "base": str(base),
        "folder": str(place),
        "dtype": dtype,
        "batch": BATCH,
        "rollout": ROLLOUT,
        "new_tokens": NEW_TOKENS,
        "lora": lora,
        "prompts": [QUESTION.format(number) for number in range(ROLLOUT)],
    }
    script = Path(__file__).with_name("trl_ppo.py")
    seconds, peak, errors, code = watched([str(python), str(script), json.dumps(settings)])
    if code:
        raise SystemExit(f"TRL's PPO failed with exit code {code}:\n{errors[-3000:]}")
    return {"peak_mib": peak, "seconds": seconds}


def _rankings() -> list[dict[str, Any]]:
    responses = [
        {"message": {"role": "assistant", "content": text}, "rank": rank}
        for rank, text in ((1, ANSWER), (2, "No idea."))
    ]
    return [{"input": {"messages": [_user(number)]}, "responses": responses} for number in range(2)]


def _user(number: int) -> dict[str, str]:
    return {"role": "user", "content": QUESTION.format(number)}


_NAMES = {
    "supervised": "Burnish, supervised",
    "dpo": "Burnish, DPO",
    "ppo": "Burnish, PPO: policy, reference, reward and value on one base",
    "trl_lora": "TRL 1.12, PPOTrainer with LoRA on the policy: three models",
    "trl_full": "TRL 1.12, PPOTrainer: four models",
}


def _grid(found: dict[str, list[Any]]) -> Grid:
    ours = Spread.of([run["peak_mib"] for run in found["ppo"]]).median
    rows = tuple(
        (
            _NAMES[name],
            (peak := Spread.of([run["peak_mib"] for run in runs])).shown(),
            f"{ours / peak.median:.2f}",
            Spread.of([run["seconds"] for run in runs]).shown(),
        )
        for name, runs in found.items()
    )
    columns = ("job", "peak memory, MiB", "Burnish's PPO / this", "wall time of the whole process, s")
    return Grid("Peak resident memory: median (smallest to largest)", columns, rows)


def _notes(found: dict[str, list[Any]], base: str, dtype: str, options: argparse.Namespace) -> tuple[str, ...]:
    peaks = {name: Spread.of([run["peak_mib"] for run in runs]).median for name, runs in found.items()}
    ratio = peaks["ppo"] / peaks["supervised"]
    notes = [
        f"Goal: at most {GOAL} times the supervised job: {ratio:.2f}, {'reached' if ratio <= GOAL else 'NOT reached'}.",
        f"{base}, {dtype}, LoRA rank {LORA['rank']}, {BATCH} rows a pass of about 128 tokens, half of them the answer "
        f"(DPO: {BATCH // 2} pairs); PPO: {ROLLOUT} answers, two passes over them, a reward model as an adapter.",
        "The peak is of the whole process with everything a job does: measuring before and after, export, reload.",
    ]
    if not options.trl:
        notes.append("TRL 1.12's PPO was not measured: give --trl with the interpreter of an environment that has it.")
        return tuple(notes)
    for program, what in (("trl_full", "four models"), ("trl_lora", "LoRA on the policy")):
        ratio = peaks[program] / peaks["ppo"]
        verdict = "reached" if ratio >= TRL_GOAL else "NOT reached"
        notes.append(f"Goal: at most 1/{TRL_GOAL} of TRL's PPO with {what}: 1/{ratio:.2f}, {verdict}.")
    notes.append(
        "TRL's reward model and value model are models of their own, the value model is trained whole, as in its own "
        "example; with LoRA the policy with its adapter off is the reference. Its process exports and verifies nothing."
    )
    return tuple(notes)


if __name__ == "__main__":
    chosen = options_parser().parse_args()
    show(benchmark(chosen), chosen)
    sys.exit(0)
