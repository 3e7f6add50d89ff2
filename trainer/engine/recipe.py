"""What a method does in each phase of a run. `trainer.run` goes through the phases; a recipe fills them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from trainer.contract.job import DataFile, JobSpec
from trainer.contract.methods.base import Kinds, LoraParameters, Resolved
from trainer.contract.result import ExitCode, sha256_of
from trainer.contract.rows import AnyRow, ChatRow
from trainer.engine.adapter_export import Verification, export_adapter, verify_export
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.data.order import iter_step_rows
from trainer.engine.data.splits import Split, format_lines
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.models.adapters import adapter_shape, add_adapter
from trainer.engine.models.dtype import DtypeChoice, choose_dtype
from trainer.engine.models.load import context_length, hidden_size, load_config, load_model, load_tokenizer, pick_device
from trainer.engine.scoring.samples import SampleQuestion, answer_greedily, pick_questions
from trainer.kit.auto import Workload, resolve_auto, resolve_max_length
from trainer.kit.budget import BudgetMeter
from trainer.kit.errors import TrainerError
from trainer.kit.event_sink import EventSink
from trainer.kit.plot_spec import PlotSpec
from trainer.kit.progress import TrainingProgress
from trainer.kit.row_files import read_rows
from trainer.kit.statistics import Measure
from trainer.kit.stop import StopFlag
from trainer.kit.workdir import BASE_FOLDER, START_FOLDER

AnyRowT = TypeVar("AnyRowT", bound=AnyRow)


@dataclass(frozen=True)
class JobContext:
    """What every recipe has at hand. `warn` keeps a sentence for the report and emits it as an event."""

    workdir: Path
    spec: JobSpec
    sink: EventSink
    stop: StopFlag
    warn: Callable[[str], None]

    @cached_property
    def meter(self) -> BudgetMeter:
        """What the job may still use up; its clock starts at the first look."""
        return BudgetMeter(self.spec.budget, self.spec.used_seconds)

    @property
    def base(self) -> Path:
        """The base model's folder; it does not exist if a model is made from scratch."""
        return self.workdir / BASE_FOLDER

    @property
    def start(self) -> Path | None:
        """The folder of the adapter that the job starts from, None if it starts from the base alone."""
        return self.workdir / START_FOLDER if self.spec.start else None


class Loop(Protocol):
    """A training loop: `fit` runs to the last step, from a checkpoint's folder if there is one."""

    progress: TrainingProgress

    def fit(self, checkpoint: Path | None) -> None:
        """Train. Raises Stopped, or TrainerError if the training cannot continue."""
        ...


class Recipe(ABC):
    """One method's part of a run, in the order of the phases: read, load, measure, train, measure, export, verify.

    `plots` are the curves of the report beside the loss.
    """

    plots: ClassVar[tuple[PlotSpec, ...]] = ()

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    config: PreTrainedConfig
    dtype: DtypeChoice
    resolved: Resolved
    model: Any
    training: Split[Any]
    validation: Split[Any] | None = None
    max_length: int
    questions: Sequence[SampleQuestion] = ()

    def __init__(self, job: JobContext) -> None:
        self.job = job
        self.hyperparameters = job.spec.method.hyperparameters

    @property
    def kind(self) -> Kinds:
        """What the result is."""
        return self.hyperparameters.result_kind

    @property
    def measured(self) -> Split[Any]:
        """The rows that models are compared on: held out, or else the training rows."""
        return self.validation or self.training

    @property
    def pad_id(self) -> int:
        """The id that fills up rows; masks come from lengths, never from it."""
        assert isinstance(self.tokenizer.pad_token_id, int)
        return self.tokenizer.pad_token_id

    @property
    def context(self) -> int:
        """The most tokens that the model can attend to."""
        return context_length(self.config)

    @abstractmethod
    def read_data(self) -> None:
        """Read and tokenize the data; sets `training`, `validation`, `max_length`. Raises TrainerError."""

    @abstractmethod
    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Measure the model as it is now on the `measured` rows, the headline first; not `full`: on a part of them."""

    @abstractmethod
    def make_loop(self, progress: TrainingProgress) -> Loop:
        """Return the training loop."""

    def row_lengths(self) -> list[int]:
        """Return each training row's tokens, in the rows' order."""
        return [len(row.input_ids) for row in self.training.rows]

    def sample_rows(self) -> Sequence[ChatRow]:
        """Return the conversations whose last turns both models answer for the report; none by default."""
        return ()

    def prepare_model(self) -> None:
        """Load the base with its adapter, and turn every `auto` into a number."""
        self.settle_hyperparameters()
        base = load_model(self.job.base, self.dtype.dtype, self.resolved.quantization)
        self.model = add_adapter(base, self.resolved, start=self.job.start)

    def settle_hyperparameters(self) -> None:
        """Choose the number format and turn every `auto` into a number, without the weights; after `read_data`."""
        self.dtype = self.pick_dtype()
        self.resolved = self.plan_hyperparameters()

    def pick_dtype(self) -> DtypeChoice:
        """Return the number format of the frozen weights."""
        return choose_dtype(self.hyperparameters.dtype, self.config)

    def resolve_hyperparameters(self) -> Resolved:
        """Turn every `auto` into a number."""
        workload = Workload(
            lengths=tuple(self.row_lengths()),
            hidden_size=hidden_size(self.config),
            device="cuda" if pick_device().type == "cuda" else "cpu",
            dtype=self.dtype.dtype,
            max_length=self.max_length,
        )
        return resolve_auto(self.hyperparameters, workload, self.job.spec.seed, lora=self.lora_shape())

    def plan_hyperparameters(self) -> Resolved:
        """Turn every `auto` into a number, and keep within the budget. Raises TrainerError (`budget_too_small`)."""
        resolved = self.resolve_hyperparameters()
        return self.job.meter.plan_steps(resolved, self.hyperparameters, self.step_tokens(resolved))

    def preview_parts(self, row: Any) -> Sequence[tuple[str, TokenizedRow]]:
        """Return what a training row shows in a preview: its parts by name, each with the mask that training uses."""
        return [("conversation", row)]

    def row_tokens(self) -> Sequence[int]:
        """Return each training row's tokens as the loop counts them."""
        return self.row_lengths()

    def step_tokens(self, resolved: Resolved) -> Iterator[int] | None:
        """Yield the tokens of each optimizer step to the run's end; None if they are not known beforehand."""
        sizes = self.row_tokens()
        return (sum(sizes[row] for row in rows) for rows in iter_step_rows(self.row_lengths(), resolved))

    def most_tokens(self) -> int:
        """Return the most tokens of a run whose steps' tokens are not known beforehand."""
        raise NotImplementedError

    def lora_shape(self) -> LoraParameters:
        """Return the adapter's shape: as asked, the start adapter's, or the default.

        Raises TrainerError (`invalid_hyperparameters`) if the start adapter has another shape than asked for.
        """
        return adapter_shape(self.hyperparameters.lora, self.job.start)

    def choose_questions(self) -> None:
        """Choose the questions for the report's samples."""
        self.questions = pick_questions(
            self.template,
            self.sample_rows(),
            count=self.job.spec.sample_count,
            context=self.context,
            source="validation" if self.validation else "training",
        )

    def answer_questions(self) -> list[str]:
        """Answer the questions with the model as it is now."""
        return answer_greedily(self.model, self.template, self.questions)

    def export_result(self, folder: Path, card: str) -> None:
        """Write the result into `folder`."""
        export_adapter(self.model, self.tokenizer, folder, base_id=self.job.spec.base.id, card=card)

    def verify_result(self, folder: Path) -> Verification:
        """Load the result anew and compare it with the trained model. Raises TrainerError (`export_mismatch`)."""
        rows = self.probe_rows()
        return verify_export(self.model, self.job.base, folder, rows, dtype=self.dtype.dtype, pad_id=self.pad_id)

    def probe_rows(self) -> Sequence[TokenizedRow]:
        """Return a few rows to compare logits on."""
        return list(self.measured.rows[:4])

    def count_parameters(self) -> tuple[int, int]:
        """Return how many parameters are trained, and all."""
        assert isinstance(self.model, PeftModel)
        trained, total = self.model.get_nb_trainable_parameters()
        return int(trained), int(total)

    def open_base(self) -> None:
        """Load the base's configuration and tokenizer, for methods on conversations: with its chat template."""
        self.config = load_config(self.job.base)
        self.tokenizer = load_tokenizer(self.job.base)
        self.template = ChatTemplate(self.tokenizer)
        if self.template.end_of_turn is None:
            self.job.warn("The chat template has no end-of-turn token: the tuned model may not know when to stop.")

    def read_file(self, file: DataFile, param: str, row: type[AnyRowT]) -> list[AnyRowT]:
        """Read a data file's rows. Raises TrainerError (`invalid_training_file`, …, `data_corrupted`)."""
        self.check_hash(file, param)
        return read_rows(self.job.workdir / file.path, row, filename=file.filename, param=param)

    def check_hash(self, file: DataFile, param: str) -> None:
        """Raise TrainerError (`data_corrupted`) if a data file is there and is not what the job states."""
        path = self.job.workdir / file.path
        if path.is_file() and sha256_of(path) != file.sha256:
            raise TrainerError(
                "data_corrupted",
                f"{file.filename} does not have the SHA-256 that the job states; upload it again.",
                param=param,
                exit_code=ExitCode.FAULT,
            )

    def set_max_length(self, longest: int) -> int:
        """Set and return `max_length`, the most tokens of a row, for rows of at most `longest` tokens."""
        self.max_length = resolve_max_length(self.hyperparameters, longest, self.context)
        return self.max_length

    def warn_about_dropped_rows(self, what: str) -> None:
        """Warn about rows that were cut or dropped. Raises TrainerError if no training row is left.

        `what` says what a row needs, such as "an assistant's token to train on".
        """
        for split in filter(None, (self.training, self.validation)):
            name = split.file.filename
            if split.cut:
                at = format_lines(split.cut)
                self.job.warn(f"{name}: {len(split.cut)} row(s) were cut to {self.max_length} tokens, at {at}.")
            if split.dropped:
                self.job.warn(f"{name}: {len(split.dropped)} row(s) have no {what}, at {format_lines(split.dropped)}.")
        if not self.training.rows:
            raise TrainerError(
                "no_trainable_rows",
                f"{self.training.file.filename} has no row with {what} within {self.max_length} tokens: check its "
                "rows and max_length.",
                param="training_file",
            )
        if self.validation is not None and not self.validation.rows:
            self.job.warn("The validation file has no row to measure on: the report has training numbers only.")
            self.validation = None
