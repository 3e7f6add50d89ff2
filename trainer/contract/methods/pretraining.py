"""Pre-training: predict every token of plain text, starting from a base or from scratch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from trainer.contract.methods.base import Auto, CommonHyperparameters, Kinds, LoraParameters, TrainingMethod
from trainer.frozen import Exact, Frozen

# 256 bytes, the special tokens, and room for merges that are worth a training.
SMALLEST_VOCABULARY = 300


class Architecture(Exact):
    """The shape of a new model: Llama's layers (RMSNorm, rotary positions, SwiGLU), with Phi-3's dropout.

    `context` is the most tokens that it attends to; `dropout` is for attention weights and residual branches.
    """

    layers: int = Field(ge=1, le=128)
    heads: int = Field(ge=1, le=256)
    width: int = Field(ge=8, le=16384)
    context: int = Field(ge=8, le=131072)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_fit(self) -> Architecture:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width {self.width} cannot be split into {self.heads} heads of an even size: make it a multiple of "
                f"{2 * self.heads}"
            )
        return self


class TrainedTokenizer(Exact):
    """A byte-level BPE tokenizer, trained on the training file."""

    type: Literal["bpe"]
    vocabulary: int = Field(le=1000000)

    @model_validator(mode="after")
    def _large_enough(self) -> TrainedTokenizer:
        if self.vocabulary < SMALLEST_VOCABULARY:
            raise ValueError(
                f"a vocabulary of {self.vocabulary} is too small: 256 bytes and the special tokens are in it before "
                f"the first merge, so give at least {SMALLEST_VOCABULARY}, or the tokenizer byte"
            )
        return self


class PretrainingHyperparameters(CommonHyperparameters):
    """Windows of `max_length` tokens, packed without padding."""

    weights: Auto | Literal["lora", "full"] = "auto"
    """What is trained: an adapter, or all weights. `auto` is an adapter on a base, all weights of a new model."""
    architecture: Architecture | None = None
    """The shape of a new model; without it the base's training continues."""
    tokenizer: Literal["base", "byte", "char"] | TrainedTokenizer = "base"
    """A new model's: the base's, one token a byte, one a character of the training file, or trained on that file."""
    attend_across_documents: bool = False
    """Whether a token sees the documents before its own in the same window."""
    learning_rate: Auto | Annotated[float, Field(gt=0, le=1)] = "auto"
    min_learning_rate_ratio: float = Field(default=0.1, ge=0, le=1)
    """Where the schedule ends, relative to the learning rate."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    max_steps: Annotated[int, Field(ge=1, le=10000000)] | None = None
    """End after this many steps, whatever `n_epochs` says."""

    @property
    def full(self) -> bool:
        """Whether all weights are trained."""
        return self.weights == "full" or self.architecture is not None

    @property
    def result_kind(self) -> Kinds:
        """All weights of a model, or an adapter."""
        return "model" if self.full else "adapter"

    @model_validator(mode="after")
    def _fits_together(self) -> PretrainingHyperparameters:
        problem = self._new_model_problem() or self._full_problem()
        if self.learning_rate != "auto" and self.learning_rate_multiplier != "auto":
            problem = "learning_rate and learning_rate_multiplier are both given: leave one out"
        if problem:
            raise ValueError(problem)
        return self

    def _new_model_problem(self) -> str | None:
        if self.architecture is None:
            needs = self.tokenizer != "base"
            return "another tokenizer than the base's needs an architecture: it makes a new model" if needs else None
        if self.weights == "lora":
            return "a new model has no weights to adapt: leave weights out, or give full"
        if self.max_length != "auto" and self.max_length > self.architecture.context:
            return f"max_length {self.max_length} is longer than the architecture's context {self.architecture.context}"
        return None

    def _full_problem(self) -> str | None:
        if not self.full:
            return None
        if isinstance(self.lora, LoraParameters):
            return "lora has no meaning where all weights are trained: leave it out, or give weights lora"
        return "all weights cannot be trained in 4 bits: use quantization none" if self.quantization == "4bit" else None


class PretrainingParameters(Frozen):
    """The block `pretraining` of the wire's `method`."""

    hyperparameters: PretrainingHyperparameters = Field(default_factory=PretrainingHyperparameters)


class PretrainingMethod(TrainingMethod):
    """`method: {type: "pretraining", pretraining: {hyperparameters: {…}}}`."""

    in_words: ClassVar[tuple[str, str]] = ("pre-training", "windows of text; every token was in the loss")
    row_format: ClassVar[str] = "pretraining"

    type: Literal["pretraining"] = "pretraining"
    pretraining: PretrainingParameters = Field(default_factory=PretrainingParameters)

    @property
    def hyperparameters(self) -> PretrainingHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.pretraining.hyperparameters
