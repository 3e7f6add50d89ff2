"""What a method does in each phase of a run. `trainer.run` goes through the phases; a recipe fills them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, cast

from peft import PeftModel
from typing_extensions import TypeVar

from trainer.contract.family import AdapterTargets
from trainer.contract.methods.base import Kinds, LoraParameters, Resolved
from trainer.engine.adapter_export import Verification, export_adapter, verify_export
from trainer.engine.data.order import iter_step_rows
from trainer.engine.data.row_pipeline import RowPipeline
from trainer.engine.models.adapters import adapter_shape, add_adapter, lora_targets
from trainer.engine.models.dtype import DtypeChoice, choose_dtype
from trainer.engine.models.families import adapter_warnings, empty_model, require_trainable
from trainer.engine.models.load import hidden_size, language_class, load_model, pick_device
from trainer.engine.scoring.samples import SampleAnswer, SampleQuestion, answer_greedily, pick_questions
from trainer.kit.auto import Workload, resolve_auto
from trainer.kit.errors import TrainerError
from trainer.kit.job_context import JobContext
from trainer.kit.plot_spec import PlotSpec
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure

AnyPipeline = RowPipeline[Any, Any, Any]
DataT_co = TypeVar("DataT_co", bound=AnyPipeline, default=AnyPipeline, covariant=True)


class Loop(Protocol):
    """A training loop: `fit` runs to the last step, from a checkpoint's folder if there is one."""

    progress: TrainingProgress

    def fit(self, checkpoint: Path | None) -> None:
        """Train. Raises Stopped, or TrainerError if the training cannot continue."""
        ...


class Recipe(ABC, Generic[DataT_co]):
    """One method's part of a run, in the order of the phases: read, load, measure, train, measure, export, verify.

    Reading is the part of `data`, a `pipeline` of the method's rows. `plots` are the curves of the report beside the
    loss.
    """

    pipeline: ClassVar[type[AnyPipeline]]
    plots: ClassVar[tuple[PlotSpec, ...]] = ()

    data: DataT_co
    dtype: DtypeChoice
    resolved: Resolved
    adapter_targets: AdapterTargets | None = None
    """Which matrices get an adapter, and which not; None if all weights are trained."""
    model: Any
    questions: Sequence[SampleQuestion] = ()

    def __init__(self, job: JobContext) -> None:
        self.job = job
        self.hyperparameters = job.spec.method.hyperparameters
        self.data = cast(DataT_co, self.pipeline(job))

    @property
    def kind(self) -> Kinds:
        """What the result is."""
        return self.hyperparameters.result_kind

    @property
    def model_class(self) -> str:
        """The class of transformers that loads the base for the result, empty if there is none."""
        return str(language_class(self.data.config).__name__)

    @abstractmethod
    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Measure the model as it is now on the `measured` rows, the headline first; not `full`: on a part of them."""

    @abstractmethod
    def make_loop(self, progress: TrainingProgress) -> Loop:
        """Return the training loop."""

    def prepare_model(self) -> None:
        """Load the base with its adapter, and turn every `auto` into a number; after the data is read."""
        # Before the weights: a budget that is too small is refused before gigabytes are read.
        self.settle_hyperparameters()
        base = load_model(self.job.base, self.dtype.dtype, self.resolved.quantization)
        self.model = add_adapter(base, self.resolved, start=self.job.start)

    def settle_hyperparameters(self) -> None:
        """Choose the number format and turn every `auto` into a number, without the weights; after the data is read."""
        require_trainable(self.data.config)
        self.dtype = self.pick_dtype()
        self.resolved = self._settle_recomputation(self.plan_hyperparameters())
        if self.kind != "model":
            self._settle_adapter()

    def _settle_recomputation(self, resolved: Resolved) -> Resolved:
        """Keep activations if the family cannot recompute them, and refuse that if it was asked for."""
        config = self.data.config
        if not resolved.gradient_checkpointing or empty_model(config).supports_gradient_checkpointing:
            return resolved
        if self.hyperparameters.gradient_checkpointing is True:
            raise TrainerError(
                "invalid_hyperparameters",
                f"transformers cannot recompute the activations of a {config.model_type} model: leave "
                "gradient_checkpointing out, or set it to false.",
                param="gradient_checkpointing",
            )
        return resolved.model_copy(update={"gradient_checkpointing": False})

    def _settle_adapter(self) -> None:
        """Find the adapter's layers, without the weights; warn about what people may not expect."""
        config, lora = self.data.config, self.resolved.lora
        self.adapter_targets = lora_targets(empty_model(config), lora).summary
        for warning in adapter_warnings(config, self.adapter_targets, experts=lora.experts):
            self.job.warn(warning)

    def pick_dtype(self) -> DtypeChoice:
        """Return the number format of the frozen weights."""
        return choose_dtype(self.hyperparameters.dtype, self.data.config)

    def resolve_hyperparameters(self) -> Resolved:
        """Turn every `auto` into a number."""
        workload = Workload(
            lengths=tuple(self.data.row_lengths()),
            hidden_size=hidden_size(self.data.config),
            device="cuda" if pick_device().type == "cuda" else "cpu",
            dtype=self.dtype.dtype,
            max_length=self.data.max_length,
        )
        return resolve_auto(self.hyperparameters, workload, self.job.spec.seed, lora=self.lora_shape())

    def plan_hyperparameters(self) -> Resolved:
        """Turn every `auto` into a number, and keep within the budget. Raises TrainerError (`budget_too_small`)."""
        resolved = self.resolve_hyperparameters()
        return self.job.meter.plan_steps(resolved, self.hyperparameters, self.step_tokens(resolved))

    def step_tokens(self, resolved: Resolved) -> Iterator[int] | None:
        """Yield the tokens of each optimizer step to the run's end; None if they are not known beforehand."""
        sizes = self.data.row_tokens()
        return (sum(sizes[row] for row in rows) for rows in iter_step_rows(self.data.row_lengths(), resolved))

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
            self.data.template,
            self.data.sample_rows(),
            count=self.job.spec.sample_count,
            context=self.data.context,
            source=self.data.measured_on,
        )

    def answer_questions(self) -> list[SampleAnswer]:
        """Answer the questions with the model as it is now."""
        return answer_greedily(self.model, self.data.template, self.questions)

    def export_result(self, folder: Path, card: str) -> None:
        """Write the result into `folder`."""
        export_adapter(self.model, self.data.tokenizer, folder, base_id=self.job.spec.base.id, card=card)

    def verify_result(self, folder: Path) -> Verification:
        """Load the result anew and compare it with the trained model. Raises TrainerError (`export_mismatch`)."""
        rows, pad_id = self.data.probe_rows(), self.data.pad_id
        return verify_export(self.model, self.job.base, folder, rows, dtype=self.dtype.dtype, pad_id=pad_id)

    def count_parameters(self) -> tuple[int, int]:
        """Return how many parameters are trained, and all."""
        assert isinstance(self.model, PeftModel)
        trained, total = self.model.get_nb_trainable_parameters()
        return int(trained), int(total)
