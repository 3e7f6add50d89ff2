"""What a training run is ordered with."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import Required, TypedDict


class Lora(TypedDict, total=False):
    """Low-rank adaptation: the matrices' rank, the scale `alpha / rank`, dropout and where they are put."""

    rank: int
    alpha: float
    dropout: float
    target_modules: Literal["all-linear"] | list[str]
    use_dora: bool
    use_rslora: bool


class Hyperparameters(TypedDict, total=False):
    """The settings that all methods share; what is left out, and what says `auto`, is chosen by the trainer.

    A method's own, such as `beta` of dpo, go beside them.
    """

    n_epochs: int | Literal["auto"]
    batch_size: int | Literal["auto"]
    learning_rate_multiplier: float | Literal["auto"]
    warmup_ratio: float
    gradient_accumulation_steps: int | Literal["auto"]
    max_length: int | Literal["auto"]
    lr_scheduler: Literal["cosine", "linear", "constant"]
    weight_decay: float
    max_grad_norm: float
    eval_steps: int | Literal["auto"]
    checkpoint_steps: int | Literal["auto"]
    dtype: Literal["auto", "float32", "bfloat16"]
    lora: Lora | Literal["auto"]
    quantization: Literal["none", "4bit"]
    gradient_checkpointing: bool | Literal["auto"]
    early_stopping_patience: int | None
    result: Literal["last", "best"]


class Budget(TypedDict, total=False):
    """What the training may use up; then it ends in order, with a model."""

    max_steps: int
    max_tokens: int
    max_gpu_minutes: float


class Resources(TypedDict, total=False):
    """What the worker must have: a GPU (1) or none in use (0), its memory in GB, words of its settings."""

    gpus: Literal[0, 1]
    gpu_memory_gb: float
    labels: list[str]


class ExpiresAfter(TypedDict):
    """When something is deleted: so many seconds after it was created."""

    anchor: Literal["created_at"]
    seconds: int


class JobExpiry(TypedDict, total=False):
    """How long a job's checkpoints, and its results, are kept."""

    checkpoints: ExpiresAfter
    artifacts: ExpiresAfter


class Wandb(TypedDict, total=False):
    """A project of Weights & Biases that a training's metrics go to."""

    project: Required[str]
    name: str | None
    entity: str | None
    tags: list[str]


class Integration(TypedDict):
    """Whom a training's metrics are sent to."""

    type: Literal["wandb"]
    wandb: Wandb


class CreateJob(TypedDict, total=False):
    """The arguments of `jobs.create`.

    `model` is a base's name, an earlier outcome's (`ft:…`, or a checkpoint `ft:…:ckpt-step-N`), or the id of a job
    that this one waits for and continues (`ftjob-…`); the files are ids. `method` names the method (default
    `supervised`) that `hyperparameters` are for, or is the wire's whole block, as for OpenAI's client. `suffix`
    becomes a part of the new model's name. `lora` is the same as among the hyperparameters. `priority` (-100 to 100)
    orders the queued jobs of the project; `timeout` is in seconds of running, after which the job fails.
    `expires_after` is `{"checkpoints": {"anchor": "created_at", "seconds": n}, "artifacts": …}`; `keep_checkpoints`
    keeps the last so many and the best. `integrations` receive the training's metrics, as on OpenAI's wire.
    `idempotency_key` is the creation's own: given again, with the same arguments, it makes no second job.
    """

    model: Required[str]
    training_file: Required[str]
    validation_file: str | None
    method: str | dict[str, Any] | None
    hyperparameters: Hyperparameters | dict[str, Any] | None
    suffix: str | None
    seed: int | None
    metadata: dict[str, str] | None
    lora: Lora | dict[str, Any] | None
    priority: int | Literal["low", "normal", "high"] | None
    timeout: int | None
    budget: Budget | dict[str, Any] | None
    resources: Resources | dict[str, Any] | None
    expires_after: JobExpiry | dict[str, Any] | None
    keep_checkpoints: int | None
    integrations: list[Integration] | None
    idempotency_key: str | None
