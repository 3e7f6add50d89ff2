"""How fast the engine for chats answers, against `generate` of transformers, on the same base and prompts.

Both answer greedily, one conversation after the other, in one process with the same threads: the base alone, and an
adapter on it. `make bench` runs it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tests.benchmarks.measuring import REPOSITORY, Grid, Outcome, Spread, at_least, in_turns, output_options, show
from tests.benchmarks.trainer_against_trl import prepared_base
from tests.fixtures.adapters import make_adapter
from trainer.chat.answers import answer_conversation
from trainer.chat.models import BaseModelCache
from trainer.contract.chat import AdapterRef, Ask, Ended, Sampling
from trainer.contract.rows import Message

PROMPTS = (
    "What is the capital of France?",
    "写一首关于秋天的短诗。",
    "List three uses of a paper clip and explain each.",
)
ENGINE, GENERATE = "engine", "generate"


def options_parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.chat", description=__doc__)
    parser.add_argument("--tokens", type=at_least(8), default=64, help="tokens of an answer (64)")
    parser.add_argument("--repeats", type=at_least(3), default=5, help="runs of each (5)")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".burnish" / "benchmarks", help="its folder")
    output_options(parser)
    return parser


def benchmark(options: argparse.Namespace) -> Outcome:
    """Answer the prompts on each road in turns and compare."""
    with tempfile.TemporaryDirectory(prefix="burnish-benchmark-") as name:
        folder = Path(name)
        base = prepared_base(options.cache)
        adapter = AdapterRef(name="adapter", path=make_adapter(base, folder / "adapter", seed=1, scale=0.003))
        rows: list[tuple[str, ...]] = []
        data: dict[str, Any] = {}
        for label, chosen in (("base", None), ("adapter", adapter)):
            roads = {
                GENERATE: partial(
                    _generate, _loaded(base, chosen), AutoTokenizer.from_pretrained(base), options.tokens
                ),
                ENGINE: partial(_engine, BaseModelCache(), base, chosen, options.tokens),
            }
            for warm in roads.values():
                warm()
            found = in_turns(list(roads), options.repeats, lambda road: roads[road]())  # noqa: B023 - used at once
            data[label] = found
            rows += _rows(label, found)
    columns = ("model", "road", "tokens/s", f"ratio to {GENERATE}")
    title = f"{len(PROMPTS)} prompts, {options.tokens} tokens each: median (smallest to largest) of {options.repeats}"
    return Outcome((Grid(title, columns, tuple(rows)),), (), {"runs": data})


def _loaded(base: Path, adapter: AdapterRef | None) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    return model if adapter is None else PeftModel.from_pretrained(model, str(adapter.path)).eval()


def _generate(model: Any, tokenizer: Any, tokens: int) -> dict[str, Any]:
    drawn, began = 0, time.perf_counter()
    for prompt in PROMPTS:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        plan = GenerationConfig(
            max_new_tokens=tokens, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=0
        )
        with torch.inference_mode():
            out = model.generate(**ids, generation_config=plan)
        drawn += out.shape[1] - ids["input_ids"].shape[1]
    return {"speed": drawn / (time.perf_counter() - began), "tokens": drawn}


def _engine(models: BaseModelCache, base: Path, adapter: AdapterRef | None, tokens: int) -> dict[str, Any]:
    drawn, began = 0, time.perf_counter()
    for number, prompt in enumerate(PROMPTS):
        ask = Ask(
            id=str(number),
            base=base,
            adapter=adapter,
            messages=(Message(role="user", content=prompt),),
            sampling=Sampling(max_tokens=tokens, temperature=0),
        )
        drawn += sum(
            event.tokens for event in answer_conversation(models, ask, lambda: False) if isinstance(event, Ended)
        )
    return {"speed": drawn / (time.perf_counter() - began), "tokens": drawn}


def _rows(label: str, found: dict[str, list[Any]]) -> list[tuple[str, ...]]:
    floor = Spread.of([run["speed"] for run in found[GENERATE]]).median
    speeds = {road: Spread.of([run["speed"] for run in runs]) for road, runs in found.items()}
    return [(label, road, speed.shown(), f"{speed.median / floor:.2f}") for road, speed in speeds.items()]


def main() -> None:
    """Measure and show."""
    options = options_parser().parse_args()
    show(benchmark(options), options)


if __name__ == "__main__":
    main()
