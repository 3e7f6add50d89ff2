"""Speed and memory of one kind of training on a large model with random weights; a child of `python -m tests.gpu`.

The weights are made on the device: nothing is downloaded, and nothing of the model is on a disk but its shape.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tests.benchmarks.measuring import peak_mib
from tests.fixtures.tiny_model import make_tokenizer
from tests.trainer.workdirs import jsonl, lay_out
from trainer.contract.events import Event, StepEvent
from trainer.engine.models.load import pick_device
from trainer.kit.event_sink import EventSink
from trainer.kit.job_context import JobContext
from trainer.kit.progress import TrainingProgress
from trainer.kit.stop import StopFlag
from trainer.kit.workdir import read_spec
from trainer.recipes import recipe_for

RANK, ALPHA = 16, 32.0
SHAPES: dict[str, dict[str, int]] = {
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 384,
    },
}


@dataclass(frozen=True)
class Work:
    """What both programs do: rows of so many characters, each a token, and so many of them a step."""

    program: str
    kind: str
    """`lora`, `qlora`, `dpo`, `grpo` or `ppo`."""
    shape: str
    steps: int
    batch: int
    characters: int
    new_tokens: int


class StepClock(TrainerCallback):
    """The moments when steps ended; how attention and checkpointing stood when the first one did."""

    def __init__(self, model: Callable[[], Any]) -> None:
        self.moments: list[float] = []
        self.facts: dict[str, str] = {}
        self._model = model

    def note_step(self) -> None:
        """Note the end of a step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.moments.append(time.perf_counter())
        if not self.facts:
            self.facts = describe_model(self._model())

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        self.note_step()

    def seconds_a_step(self) -> float:
        """Return the median time of the steps behind the first, which warms up."""
        return statistics.median(
            later - earlier for earlier, later in zip(self.moments, self.moments[1:], strict=False)
        )


def describe_model(model: Any) -> dict[str, str]:
    """Say what attention is computed by, how the head's numbers lie, and whether activations are recomputed."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    recomputes = any(getattr(module, "gradient_checkpointing", False) for module in plain.modules())
    return {
        "attention": str(plain.config._attn_implementation),
        "head": str(plain.get_output_embeddings().weight.dtype).removeprefix("torch."),
        "checkpointing": "on" if recomputes else "off",
    }


def write_base(folder: Path, shape: str) -> Path:
    """Write a base's configuration and tokenizer, of a token a byte; it has no weights."""
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(str(folder))
    sizes: dict[str, Any] = dict(SHAPES[shape])
    config = LlamaConfig(
        **sizes,
        max_position_embeddings=8192,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(str(folder))
    return folder


def make_random_model(base: Path, dtype: torch.dtype, *, quantize: bool) -> Any:
    """Make the base's model on this device, the same numbers each time."""
    device = pick_device()
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(base), dtype=dtype)
    model.config.use_cache = False
    return quantize_linears(model, device) if quantize else model


def quantize_linears(model: Any, device: torch.device) -> Any:
    """Hold every linear layer but the head in NF4, as loading with `load_in_4bit` does."""
    import bitsandbytes as bnb  # pyright: ignore[reportMissingImports] - there is a GPU, or this is not called

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.Linear) or child is model.get_output_embeddings():
                continue
            packed = bnb.nn.Linear4bit(
                child.in_features, child.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
            )
            packed.weight = bnb.nn.Params4bit(child.weight.data, requires_grad=False, quant_type="nf4")
            setattr(parent, name, packed.to(device))
    model.is_loaded_in_4bit = True
    return model


@contextmanager
def random_weights() -> Iterator[None]:
    """Let loading a base mean making its weights."""

    def make_instead(base: Any, *, dtype: torch.dtype, quantization_config: Any = None, **more: Any) -> Any:
        model = make_random_model(Path(base), dtype, quantize=quantization_config is not None)
        return (model, {"missing_keys": ()}) if more.get("output_loading_info") else model

    with patch.object(AutoModelForCausalLM, "from_pretrained", make_instead):
        yield


def question_text(work: Work, number: int) -> str:
    """Return a prompt of half a row's characters."""
    return f"{number:03d} " + "q" * (work.characters // 2 - 4)


def answer_text(work: Work, letter: str = "a") -> str:
    """Return an answer of half a row's characters."""
    return letter * (work.characters // 2)


def run_burnish(work: Work, folder: Path) -> tuple[StepClock, float]:
    """Train as a job does, up to its last step; return the clock and the tokens of a step."""
    count = work.steps * work.batch
    user = [[{"role": "user", "content": question_text(work, number)}] for number in range(count)]
    better, worse = ({"role": "assistant", "content": answer_text(work, letter)} for letter in "ab")
    asked: dict[str, Any] = {
        "n_epochs": 1,
        "batch_size": work.batch,
        "dtype": "bfloat16",
        "lora": {"rank": RANK, "alpha": ALPHA},
        "max_length": 4096,
        "eval_steps": 10**6,
        "checkpoint_steps": 10**6,
    }
    kind = {"lora": "supervised", "qlora": "supervised"}.get(work.kind, work.kind)
    if work.kind == "qlora":
        asked["quantization"] = "4bit"
    rows: list[dict[str, Any]] = [{"messages": [*prompt, better]} for prompt in user]
    if kind == "dpo":
        rows = [
            {"input": {"messages": prompt}, "preferred_output": [better], "non_preferred_output": [worse]}
            for prompt in user
        ]
    if kind in ("ppo", "grpo"):
        rows = [{"input": {"messages": prompt}} for prompt in user]
        reward = {"function": "length", "parameters": {"target": 3}}
        asked |= {"reward": reward, "iterations": work.steps, "max_new_tokens": work.new_tokens, "kl_max": 10000}
        asked |= {"rollout_prompts": work.batch} if kind == "ppo" else {"rollout_prompts": 1, "group_size": work.batch}
    base = write_base(folder / "base", work.shape)
    workdir = lay_out(folder / "job", base, jsonl(rows), method={"type": kind, kind: {"hyperparameters": asked}})
    sink = _NotingSink(workdir)
    recipe = recipe_for(JobContext(workdir, read_spec(workdir), sink, StopFlag(), print))
    recipe.data.read_data()
    recipe.prepare_model()
    clock = StepClock(lambda: recipe.model)
    sink.note_step = clock.note_step
    progress = TrainingProgress()
    loop = recipe.make_loop(progress)
    reset_peak()
    loop.fit(None)
    return clock, progress.tokens_seen / len(clock.moments)


class _NotingSink(EventSink):
    note_step: Callable[[], None]

    def emit(self, event: Event) -> None:
        super().emit(event)
        if isinstance(event, StepEvent):
            self.note_step()


def run_trl(work: Work, folder: Path) -> tuple[StepClock, float]:
    """Train the same by TRL's own trainer; return the clock and the tokens of a step."""
    count = work.steps * work.batch
    base, tokenizer = write_base(folder / "base", work.shape), make_tokenizer()
    user = [[{"role": "user", "content": question_text(work, number)}] for number in range(count)]
    better, worse = ([{"role": "assistant", "content": answer_text(work, letter)}] for letter in "ab")
    on_gpu = torch.cuda.is_available()
    common: dict[str, Any] = {
        "output_dir": str(folder / "trl"),
        "per_device_train_batch_size": work.batch,
        "max_steps": work.steps,
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "gradient_checkpointing": on_gpu,
        "logging_steps": 10**6,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    model = make_random_model(base, torch.bfloat16, quantize=work.kind == "qlora")
    lora = LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules="all-linear", task_type="CAUSAL_LM")
    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "dpo": (DPOTrainer, DPOConfig, {"max_length": None}),
        "grpo": (GRPOTrainer, GRPOConfig, {"num_generations": work.batch, "max_completion_length": work.new_tokens}),
    }
    make, configure, own = kinds.get(work.kind, (SFTTrainer, SFTConfig, {"max_length": None}))
    rows: list[dict[str, Any]] = [{"prompt": prompt} for prompt in user]
    if work.kind == "dpo":
        rows = [{**row, "chosen": better, "rejected": worse} for row in rows]
    elif work.kind != "grpo":
        rows = [{**row, "completion": better} for row in rows]
    given: dict[str, Any] = {"reward_funcs": _short_answers} if work.kind == "grpo" else {}
    trainer = make(
        model=model,
        processing_class=tokenizer,
        peft_config=lora,
        args=configure(**common, **own),
        train_dataset=Dataset.from_list(rows),
        **given,
    )
    clock = StepClock(lambda: trainer.model)
    trainer.add_callback(clock)
    reset_peak()
    trainer.train()
    return clock, tokens_of_a_step(work)


def _short_answers(completions: list[Any], **_: Any) -> list[float]:
    return [-abs(len(answer[0]["content"]) - 3) / 10 for answer in completions]


def tokens_of_a_step(work: Work) -> float:
    """Return the tokens that a step of TRL's sees, by the template: it shows no count of its own for all of these."""
    tokenizer = make_tokenizer()
    prompt = [{"role": "user", "content": question_text(work, 0)}]
    answer = [{"role": "assistant", "content": answer_text(work)}]
    whole = len(tokenizer.apply_chat_template(prompt + answer, return_dict=False))
    if work.kind == "grpo":
        opening = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False))
        return float(work.batch * (opening + work.new_tokens))
    return float(work.batch * whole * (2 if work.kind == "dpo" else 1))


def reset_peak() -> None:
    """Forget the memory that making the model took."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def main(work: Work) -> dict[str, Any]:
    """Train and return the measurements."""
    with tempfile.TemporaryDirectory(prefix="burnish-gpu-") as name, random_weights():
        run = {"burnish": run_burnish, "trl": run_trl}[work.program]
        clock, tokens = run(work, Path(name))
    seconds = clock.seconds_a_step()
    on_gpu = torch.cuda.is_available()
    return {
        **asdict(work),
        **clock.facts,
        "tokens_a_step": tokens,
        "seconds_a_step": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_mib(),
    }


if __name__ == "__main__":
    print(json.dumps(main(Work(**json.loads(sys.argv[1])))))
