"""One training run in a fresh process, by Burnish's trainer or by plain TRL; a child of `trainer_against_trl`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

START = time.perf_counter()

import torch  # noqa: E402 - importing is part of the time until the first step
from datasets import Dataset  # noqa: E402
from peft import LoraConfig, PeftModel  # noqa: E402
from transformers import Trainer, TrainerCallback  # noqa: E402
from trl.trainer.sft_config import SFTConfig  # noqa: E402
from trl.trainer.sft_trainer import SFTTrainer  # noqa: E402

from tests.benchmarks.measuring import Bystanders, peak_mib  # noqa: E402
from trainer.contract.job import BaseModelRef, DataFile, JobSpec  # noqa: E402
from trainer.contract.methods.base import LoraParameters, Resolved  # noqa: E402
from trainer.contract.methods.supervised import (  # noqa: E402
    SupervisedHyperparameters,
    SupervisedMethod,
    SupervisedParameters,
)
from trainer.contract.result import sha256_of  # noqa: E402
from trainer.contract.rows import ChatRow  # noqa: E402
from trainer.engine.chat_template.render import ChatTemplate  # noqa: E402
from trainer.engine.data.row_renderer import tokenize_rows  # noqa: E402
from trainer.engine.data.tokens import TokenizedRow, fit_rows  # noqa: E402
from trainer.engine.models.load import hidden_size, load_config, load_model, load_tokenizer, pick_device  # noqa: E402
from trainer.engine.recipe import JobContext  # noqa: E402
from trainer.engine.scoring.evaluate import score_rows  # noqa: E402
from trainer.kit.auto import base_learning_rate  # noqa: E402
from trainer.kit.event_sink import EventSink  # noqa: E402
from trainer.kit.progress import TrainingProgress  # noqa: E402
from trainer.kit.row_files import read_rows  # noqa: E402
from trainer.kit.stop import StopFlag  # noqa: E402
from trainer.recipes.supervised import SupervisedRecipe  # noqa: E402


@dataclass(frozen=True)
class Settings:
    """What both programs are told; they see the first `steps · batch` rows of the file, each once."""

    program: str
    base: str
    train: str
    held_out: str
    held_out_rows: int
    steps: int
    batch: int
    dtype: str
    rank: int
    alpha: float
    seed: int

    @property
    def rows(self) -> int:
        """The rows that are trained on."""
        return self.steps * self.batch

    @property
    def learning_rate(self) -> float:
        """The rate that Burnish would choose for this base."""
        return base_learning_rate(hidden_size(load_config(Path(self.base))))


class Clock(TrainerCallback):
    """The time from the first step's begin to the last step's end, optimizer included, checkpoints not."""

    def __init__(self) -> None:
        self.begins: list[float] = []
        self.end = 0.0

    def on_step_begin(self, *_args: Any, **_kwargs: Any) -> None:
        self.begins.append(_now())

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        self.end = _now()


def burnish(settings: Settings, workdir: Path) -> tuple[Trainer, PeftModel]:
    """Build the trainer of a job as `trainer.run` does."""
    lora = LoraParameters(rank=settings.rank, alpha=settings.alpha)
    (workdir / "data").mkdir()
    (workdir / "base").symlink_to(Path(settings.base).resolve())
    lines = Path(settings.train).read_text(encoding="utf-8").splitlines(keepends=True)[: settings.rows]
    data = workdir / "data" / "train.jsonl"
    data.write_text("".join(lines), encoding="utf-8")
    hyperparameters = SupervisedHyperparameters(dtype=cast(Any, settings.dtype), lora=lora)
    spec = JobSpec(
        job_id="benchmark",
        model_name="benchmark",
        base=BaseModelRef(id="benchmark", fingerprint=""),
        method=SupervisedMethod(supervised=SupervisedParameters(hyperparameters=hyperparameters)),
        training=DataFile(path="data/train.jsonl", filename="train.jsonl", sha256=sha256_of(data)),
        seed=settings.seed,
    )

    class Fixed(SupervisedRecipe):
        def resolve_hyperparameters(self) -> Resolved:
            return _resolved(settings, lora)

    recipe = Fixed(JobContext(workdir, spec, EventSink(workdir), StopFlag(), warn=print))
    recipe.data.read_data()
    recipe.prepare_model()
    return recipe.make_loop(TrainingProgress()), recipe.model


def trl(settings: Settings, workdir: Path) -> tuple[Trainer, PeftModel]:
    """Build TRL's own trainer on the same rows, in its form for loss on the answer only: prompt and completion."""
    rows: list[dict[str, Any]] = []
    for line in Path(settings.train).read_text(encoding="utf-8").splitlines()[: settings.rows]:
        messages = json.loads(line)["messages"]
        rows.append({"prompt": messages[:-1], "completion": messages[-1:]})
    on_cpu = pick_device().type == "cpu"
    arguments = SFTConfig(
        output_dir=str(workdir / "trl"),
        per_device_train_batch_size=settings.batch,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        optim="adamw_torch",
        seed=settings.seed,
        bf16=False,
        use_cpu=on_cpu,
        activation_checkpointing=not on_cpu,
        dataloader_pin_memory=not on_cpu,
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=load_model(Path(settings.base), settings.dtype),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(Path(settings.base)),
        peft_config=LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType] - any number scales
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    assert isinstance(trainer.model, PeftModel)
    return trainer, trainer.model


PROGRAMS: dict[str, Callable[[Settings, Path], tuple[Trainer, PeftModel]]] = {"burnish": burnish, "trl": trl}


def measure(settings: Settings, workdir: Path) -> dict[str, Any]:
    """Train once and return the measurements; the memory is read before anything is scored."""
    trainer, model = PROGRAMS[settings.program](settings, workdir)
    clock, places = Clock(), _count_places(model)
    trainer.add_callback(clock)
    tokens = sum(len(ids) for ids in trainer.train_dataset["input_ids"])  # pyright: ignore[reportOptionalSubscript, reportArgumentType, reportIndexIssue, reportCallIssue]
    trained = sum(label != -100 for labels in trainer.train_dataset["labels"] for label in labels[1:])  # pyright: ignore[reportOptionalSubscript, reportArgumentType, reportIndexIssue, reportCallIssue]
    bystanders = Bystanders()
    trainer.train()
    others, counted = bystanders.share(), places[0]
    seconds = clock.end - clock.begins[0]
    memory = peak_mib()
    gpu_memory = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
    return {
        "steps": len(clock.begins),
        "tokens": tokens,
        "trained_tokens": trained,
        "places": counted,
        "seconds": seconds,
        "others_share": others,
        "tokens_per_second": tokens / seconds,
        "seconds_before_first_step": clock.begins[0] - START,
        "peak_rss_mib": memory,
        "peak_gpu_mib": gpu_memory,
        "trainable_parameters": model.get_nb_trainable_parameters()[0],
        "held_out_loss_before": _held_out_loss(settings, model, base=True),
        "held_out_loss": _held_out_loss(settings, model, base=False),
    }


def _held_out_loss(settings: Settings, model: PeftModel, *, base: bool) -> float:
    template = ChatTemplate(load_tokenizer(Path(settings.base)))
    rows = _tokenized(settings.held_out, settings.held_out_rows, template)
    pad_id = template.tokenizer.pad_token_id
    assert isinstance(pad_id, int)
    if not base:
        return score_rows(model, rows, pad_id)[0].value
    with model.disable_adapter():
        return score_rows(model, rows, pad_id)[0].value


def _tokenized(path: str, count: int, template: ChatTemplate) -> tuple[TokenizedRow, ...]:
    rows = read_rows(Path(path), ChatRow, filename=Path(path).name, param="training_file")[:count]
    return fit_rows(tokenize_rows(template, rows), 2048).rows


def _resolved(settings: Settings, lora: LoraParameters) -> Resolved:
    return Resolved(
        n_epochs=1,
        batch_size=settings.batch,
        learning_rate_multiplier=1.0,
        learning_rate=settings.learning_rate,
        warmup_ratio=0.0,
        warmup_steps=0,
        gradient_accumulation_steps=1,
        max_length=2048,
        lr_scheduler="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        eval_steps=settings.steps,
        checkpoint_steps=settings.steps,
        total_steps=settings.steps,
        dtype=settings.dtype,
        lora=lora,
        seed=settings.seed,
    )


def _count_places(model: PeftModel) -> list[int]:
    """Count the token places of all forward passes, padding included, in the one number of the returned list.

    They are counted at the model, as each trainer makes its batches in its own way.
    """
    places = [0]

    def count(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        places[0] += (kwargs["input_ids"] if "input_ids" in kwargs else args[0]).numel()

    model.register_forward_pre_hook(count, with_kwargs=True)
    return places


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="burnish-benchmark-") as folder:
        print(json.dumps(measure(Settings(**json.loads(sys.argv[1])), Path(folder))))
