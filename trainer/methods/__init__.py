"""The training methods, one file each. A new method is its file and its name in `Method` and in `METHODS`."""

from typing import Annotated

from pydantic import Field

from trainer.methods.dpo import DpoMethod
from trainer.methods.grpo import GrpoMethod
from trainer.methods.kto import KtoMethod
from trainer.methods.orpo import OrpoMethod
from trainer.methods.ppo import PpoMethod
from trainer.methods.pretraining import PretrainingMethod
from trainer.methods.reinforcement import ReinforcementMethod
from trainer.methods.reward import RewardMethod
from trainer.methods.supervised import SupervisedMethod

METHODS = (
    PretrainingMethod,
    SupervisedMethod,
    RewardMethod,
    DpoMethod,
    PpoMethod,
    GrpoMethod,
    KtoMethod,
    OrpoMethod,
    ReinforcementMethod,
)

Method = Annotated[
    PretrainingMethod
    | SupervisedMethod
    | RewardMethod
    | DpoMethod
    | PpoMethod
    | GrpoMethod
    | KtoMethod
    | OrpoMethod
    | ReinforcementMethod,
    Field(discriminator="type"),
]
