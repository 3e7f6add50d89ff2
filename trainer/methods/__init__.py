"""The training methods, one file each. A new method is its file, its name in `AnyMethod` and its recipe."""

from typing import Annotated, get_args

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

AnyMethod = (
    PretrainingMethod
    | SupervisedMethod
    | RewardMethod
    | DpoMethod
    | PpoMethod
    | GrpoMethod
    | KtoMethod
    | OrpoMethod
    | ReinforcementMethod
)
Method = Annotated[AnyMethod, Field(discriminator="type")]
METHODS: tuple[type[AnyMethod], ...] = get_args(AnyMethod)
