"""What every method shares on the wire: hyperparameters that may be `auto`, and the LoRA settings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trainer.frozen import Exact, Frozen

Auto = Literal["auto"]
ThoughtUse = Literal["train", "context", "drop"]
Kinds = Literal["adapter", "reward", "model"]
"""What a job leaves: an adapter, an adapter with a score head, or all weights of a model."""


class LoraParameters(Exact):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): W + (alpha / rank) · B·A on the target modules.

    `use_rslora` scales by alpha / √rank (Kalajdzievski 2023, arXiv 2312.03732); `use_dora` trains magnitude and
    direction apart (Liu et al. 2024, arXiv 2402.09353).
    """

    rank: int = Field(default=16, ge=1, le=512)
    alpha: float = Field(default=32.0, gt=0, le=4096)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1, max_length=64)] = "all-linear"
    use_dora: bool = False
    use_rslora: bool = False
    experts: bool = False
    """Adapt the stacked matrices of a mixture's experts too, which few servers load; without dropout and `use_dora`."""


class CommonHyperparameters(Exact):
    """The hyperparameters of every method. The first three are the wire's own; `auto` is resolved by the trainer."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=1000)] = "auto"
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    gradient_accumulation_steps: Auto | Annotated[int, Field(ge=1, le=1024)] = "auto"
    max_length: Auto | Annotated[int, Field(ge=8, le=131072)] = "auto"
    lr_scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    max_grad_norm: float = Field(default=1.0, gt=0, le=1000)
    eval_steps: Auto | Annotated[int, Field(ge=1)] = "auto"
    checkpoint_steps: Auto | Annotated[int, Field(ge=1)] = "auto"
    dtype: Auto | Literal["float32", "bfloat16"] = "auto"
    lora: Auto | LoraParameters = "auto"
    """`auto` is the shape of the adapter that the job starts from, or the default of a new one."""
    quantization: Literal["none", "4bit"] = "none"
    """`4bit` holds the frozen base in NF4 (QLoRA, Dettmers et al. 2023, arXiv 2305.14314); needs a GPU."""
    gradient_checkpointing: Auto | bool = "auto"
    """Recompute activations in the backward pass: less memory, a third more time; `auto` does so on a GPU."""
    early_stopping_patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    """End after this many evaluations in a row without a better headline measure; needs a validation file."""
    result: Literal["last", "best"] = "last"
    """Which weights become the result: the last step's, or those of the best evaluation."""

    evaluation_options: ClassVar[tuple[str, ...]] = ("early_stopping_patience", "result", "eval_steps")
    """What says how evaluations are done and used."""
    learning_rate_scale: ClassVar[float] = 1.0
    """What the method's automatic learning rate is, relative to supervised fine-tuning's."""

    @property
    def steps_between_evaluations(self) -> Auto | int:
        """The steps between evaluations, by whatever name the method has for them."""
        return self.eval_steps

    @property
    def invalid_share(self) -> float:
        """The share of a file's rows that may be left out because they cannot be rendered."""
        return 0.0

    @property
    def thought_use(self) -> ThoughtUse:
        """What becomes of an answer's thoughts."""
        return "train"

    @property
    def result_kind(self) -> Kinds:
        """What the job leaves."""
        return "adapter"

    def find_ineffective(self, *, has_validation: bool) -> dict[str, str]:
        """Return the hyperparameters that are given and change nothing in such a job, each with the reason."""
        if has_validation:
            return {}
        return self.given_options(self.evaluation_options, "nothing is evaluated without a validation file")

    def given_options(self, names: Iterable[str], reason: str) -> dict[str, str]:
        """Return those of `names` that do not have their default, each with the reason."""
        fields = type(self).model_fields
        return {name: reason for name in names if getattr(self, name) != fields[name].default}

    def settings(self) -> dict[str, Any]:
        """Return the hyperparameters that only this method has, as they were requested."""
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if name not in CommonHyperparameters.model_fields
        }


class TrainingMethod(Frozen):
    """One member of the wire's `method`, and all that other code has to know of it: its file says it, and no list."""

    in_words: ClassVar[tuple[str, str]]
    """What the model card calls the method, and what it was trained on."""
    row_format: ClassVar[str]
    """The format of its files' rows: a name in `burnish.datasets.ROW_FORMATS`."""
    headline: ClassVar[str | None] = None
    """The measure that its evaluations put first, if more of it is better; None if that is the loss."""

    @property
    @abstractmethod
    def hyperparameters(self) -> CommonHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""


class Resolved(Frozen):
    """Every hyperparameter as the number that is really used: the wire's `auto` is gone."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    learning_rate: float
    warmup_ratio: float
    warmup_steps: int
    gradient_accumulation_steps: int
    max_length: int
    lr_scheduler: str
    weight_decay: float
    max_grad_norm: float
    eval_steps: int
    checkpoint_steps: int
    total_steps: int
    dtype: str
    lora: LoraParameters
    quantization: str = "none"
    gradient_checkpointing: bool = False
    early_stopping_patience: int | None = None
    result: Literal["last", "best"] = "last"
    seed: int
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The numbers of this method alone."""

    def shown(self) -> dict[str, Any]:
        """Return all numbers side by side, as the wire and the report show them."""
        common = self.model_dump(mode="json", exclude={"settings"})
        return {**common, **self.settings}
