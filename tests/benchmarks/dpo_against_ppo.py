"""DPO against PPO on one preference problem with a known reward: what each road reaches for which KL, time and memory.

The rule: an answer has about 30 characters and ends. PPO asks the rule itself; DPO has pairs of the start model's own
answers, labelled by a Bradley-Terry draw from the rule. Both start from the same base with the same adapter's shape.
"""

from __future__ import annotations

import argparse
import io
import math
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.benchmarks.jobs import Ran, run_job
from tests.benchmarks.measuring import REPOSITORY, Grid, Outcome, Spread, at_least, output_options, show
from tests.benchmarks.trainer_against_trl import prepared_base
from trainer.contract.methods.reward_functions import LengthReward
from trainer.engine.onpolicy.reward_functions import score_texts

RULE = LengthReward(target=30)
NEW_TOKENS = 20
PPO_KL = (0.2, 0.05, 0.01)
DPO_BETAS = (0.5, 0.2, 0.05)
LORA = {"rank": 8, "alpha": 16}
# Rewards of 0 to about -1.5 are sharpened, so that a label is seldom a coin's toss.
SHARPNESS = 5.0
_WORDS = """
tea rice bread salt soap paper glass rain snow wind fire stone wood gold milk honey apples books music trains boats
bridges gardens clocks mirrors candles letters maps cities rivers mountains islands forests deserts birds fish horses
cats dogs bees stars clouds doors windows stairs roofs 茶 米饭 雨 雪 书 音乐 火车 船 桥 花园 山 河
"""
THINGS = tuple(_WORDS.split())


@dataclass(frozen=True)
class Point:
    """A model of one road: reward and KL of its answers to held-out prompts, and what it took to make."""

    road: str
    strength: float
    reward: float
    reward_error: float
    kl: float
    seconds: float


class Model:
    """The base, or an adapter on it, that answers prompts by sampling."""

    def __init__(self, base: Path, adapter: Path | None = None) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if adapter is not None:
            self.model = PeftModel.from_pretrained(self.model, str(adapter))
        self.model.eval()

    @torch.no_grad()
    def answer(self, prompts: Sequence[str], *, draws: int, seed: int) -> tuple[list[str], list[float]]:
        """Draw `draws` answers to each prompt; return texts and log π - log base of each answer, in nats."""
        torch.manual_seed(seed)
        texts: list[str] = []
        ratios: list[float] = []
        for first in range(0, len(prompts), 16):
            part = [[{"role": "user", "content": text}] for text in prompts[first : first + 16]]
            batch = self.tokenizer.apply_chat_template(
                part, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
            )
            drawn = self.model.generate(
                **batch,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=draws,
                max_new_tokens=NEW_TOKENS,
            )
            start = batch["input_ids"].shape[1]
            mask = _until_end(drawn[:, start:], self.tokenizer.eos_token_id)
            texts += self.tokenizer.batch_decode(drawn[:, start:], skip_special_tokens=True)
            ratios += self._ratios(drawn, batch["attention_mask"].repeat_interleave(draws, 0), mask, start)
        return texts, ratios

    def _ratios(self, ids: torch.Tensor, prompt_mask: torch.Tensor, mask: torch.Tensor, start: int) -> list[float]:
        if not isinstance(self.model, PeftModel):
            return [0.0] * len(ids)
        attention = torch.cat([prompt_mask, mask], 1)

        def log_probs() -> torch.Tensor:
            logits = self.model(input_ids=ids, attention_mask=attention).logits[:, start - 1 : -1]
            taken = logits.log_softmax(-1).gather(-1, ids[:, start:, None]).squeeze(-1)
            return (taken * mask).sum(1)

        tuned = log_probs()
        with self.model.disable_adapter():
            return (tuned - log_probs()).tolist()


def options_parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.dpo_against_ppo", description=__doc__)
    parser.add_argument("--base", type=Path, help="a prepared base's folder")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".burnish" / "benchmarks", help="where it is kept")
    parser.add_argument("--iterations", type=at_least(1), default=8, help="PPO's iterations of 16 answers (8)")
    parser.add_argument("--seed", type=int, default=7)
    output_options(parser)
    return parser


def benchmark(options: argparse.Namespace) -> Outcome:
    """Walk both roads for each strength and measure their models alike."""
    base = (options.base or prepared_base(options.cache)).resolve()
    prompts = [f"In a few words: {thing}?" for thing in THINGS]
    random.Random(options.seed).shuffle(prompts)
    held_out, training = prompts[:16], prompts[16:]
    start = Model(base)
    points = [_point(start, held_out, "start", 0.0, None, 0.0, options.seed)]
    begun = time.perf_counter()
    pairs = _pairs(start, training, options.seed)
    sampling = time.perf_counter() - begun
    del start
    with tempfile.TemporaryDirectory() as folder:
        for beta in DPO_BETAS:
            print(f"DPO, beta {beta}", file=sys.stderr, flush=True)
            ran = run_job(
                Path(folder) / f"dpo-{beta}", base, "dpo", pairs, beta=beta, n_epochs=2, batch_size=8, lora=LORA
            )
            points.append(_point(Model(base, ran.adapter), held_out, "DPO", beta, ran, sampling, options.seed))
        rows = [{"input": {"messages": [{"role": "user", "content": text}]}} for text in training]
        reward = {"function": "length", "parameters": RULE.model_dump()}
        for strength in PPO_KL:
            print(f"PPO, KL coefficient {strength}", file=sys.stderr, flush=True)
            ran = run_job(
                Path(folder) / f"ppo-{strength}", base, "ppo", rows, **_ppo(reward, strength, options.iterations)
            )
            points.append(_point(Model(base, ran.adapter), held_out, "PPO", strength, ran, 0.0, options.seed))
    return outcome_of(points, _notes(len(pairs), sampling, options))


def outcome_of(points: Sequence[Point], notes: tuple[str, ...]) -> Outcome:
    """Return the tables of what was measured."""
    data = {"points": [vars(point) for point in points], "notes": notes}
    return Outcome((_grid(points), _roads(points)), notes, data)


def _ppo(reward: dict[str, Any], strength: float, iterations: int) -> dict[str, Any]:
    return {
        "lora": LORA,
        "kl_coef": strength,
        "iterations": iterations,
        "rollout_prompts": 16,
        "max_new_tokens": NEW_TOKENS,
        "reward": reward,
    }


def _pairs(start: Model, prompts: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Draw four answers to each prompt and label two pairs by Bradley-Terry with the sharpened rule."""
    texts, _ = start.answer(prompts, draws=4, seed=seed)
    rewards = score_texts("length", RULE, texts, [None] * len(texts))
    choose = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(0, len(texts), 2):
        first, second = (number, number + 1)
        if texts[first].strip() == texts[second].strip() or not all(texts[n].strip() for n in (first, second)):
            continue
        wins = choose.random() < 1 / (1 + math.exp(-SHARPNESS * (rewards[first] - rewards[second])))
        better, worse = (first, second) if wins else (second, first)
        rows.append(
            {
                "input": {"messages": [{"role": "user", "content": prompts[number // 4]}]},
                "preferred_output": [{"role": "assistant", "content": texts[better].strip()}],
                "non_preferred_output": [{"role": "assistant", "content": texts[worse].strip()}],
            }
        )
    return rows


def _point(
    model: Model, prompts: Sequence[str], road: str, strength: float, ran: Ran | None, before: float, seed: int
) -> Point:
    texts, ratios = model.answer(prompts, draws=8, seed=seed + 1)
    rewards = torch.tensor(score_texts("length", RULE, texts, [None] * len(texts)))
    by_prompt = rewards.view(len(prompts), -1).mean(1)
    return Point(
        road=road,
        strength=strength,
        reward=float(rewards.mean()),
        reward_error=1.96 * float(by_prompt.std()) / math.sqrt(len(prompts)),
        kl=sum(ratios) / len(ratios),
        seconds=before + (ran.seconds if ran else 0.0),
    )


def _until_end(answers: torch.Tensor, end: int) -> torch.Tensor:
    """Return 1 for every token up to the first end token."""
    ended = (answers == end).long().cumsum(1)
    return ((ended == 0) | ((ended == 1) & (answers == end))).long()


def _grid(points: Sequence[Point]) -> Grid:
    rows = tuple(
        (
            point.road,
            f"{point.strength:g}" if point.strength else "",
            f"{point.reward:.3f} ± {point.reward_error:.3f}",
            f"{point.kl:.2f}",
            f"{point.seconds:.0f}" if point.seconds else "",
        )
        for point in points
    )
    columns = ("road", "β or KL coefficient", "reward (95%)", "KL, nats an answer", "wall time, s")
    return Grid("Reward (0 is the best) and KL to the start of 128 answers to 16 held-out prompts", columns, rows)


def _roads(points: Sequence[Point]) -> Grid:
    rows: list[tuple[str, ...]] = []
    for road in ("DPO", "PPO"):
        own = [point for point in points if point.road == road]
        best = max(own, key=lambda point: point.reward)
        seconds = Spread.of([point.seconds for point in own]).shown()
        rows.append((road, seconds, f"{best.reward:.3f}", f"{best.kl:.2f}"))
    columns = ("road", "wall time, s: median (smallest to largest)", "best reward", "its KL")
    return Grid("What DPO saves, and what it costs", columns, tuple(rows))


def _notes(pairs: int, sampling: float, options: argparse.Namespace) -> tuple[str, ...]:
    return (
        f"The rule is the programmatic reward `length` with a target of {RULE.target} characters; answers have at most "
        f"{NEW_TOKENS} tokens. Prompts are English and Chinese.",
        f"DPO: {pairs} pairs of the start's own answers, 2 epochs; its time has the {sampling:.0f} s of drawing them, "
        "once for all β. The rule gives labels at no cost; from people they would be the larger part.",
        f"PPO: {options.iterations} iterations of 16 answers, 4 passes each; it asks the rule for every answer.",
        "KL is the mean of log π - log base over the drawn answers. The memory of both roads is in ppo_memory.md.",
        f"One seed ({options.seed}); the intervals are over prompts, not over trainings.",
    )


def plot(points: Sequence[dict[str, Any]]) -> str:
    """Return reward against KL as an SVG."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(7, 4.2), layout="constrained")
    axes: Any = figure.add_subplot()
    start = points[0]
    axes.axhline(start["reward"], color="#8b93a7", linestyle="--", linewidth=1, label="start")
    for road, color, symbol in (("DPO", "#2f6fed", "β"), ("PPO", "#d9822b", "KL coefficient")):
        own = sorted((p for p in points if p["road"] == road), key=lambda p: p["kl"])
        axes.errorbar(
            [p["kl"] for p in own],
            [p["reward"] for p in own],
            yerr=[p["reward_error"] for p in own],
            color=color,
            marker="o",
            capsize=3,
            label=road,
        )
        for p in own:
            axes.annotate(
                f"{symbol} {p['strength']:g}",
                (p["kl"], p["reward"]),
                textcoords="offset points",
                xytext=(6, -12),
                fontsize=8,
                color=color,
            )
    axes.set_xlabel("KL to the start, nats an answer")
    axes.set_ylabel("reward on held-out prompts (0 is the best)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


if __name__ == "__main__":
    chosen = options_parser().parse_args()
    show(benchmark(chosen), chosen)
