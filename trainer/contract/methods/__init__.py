"""The training methods, one file each. A new method is its file, its name in `AnyMethod` and its recipe."""

from typing import Annotated, get_args

from pydantic import Field

from trainer.contract.methods.dpo import DpoMethod
from trainer.contract.methods.grpo import GrpoMethod
from trainer.contract.methods.kto import KtoMethod
from trainer.contract.methods.orpo import OrpoMethod
from trainer.contract.methods.ppo import PpoMethod
from trainer.contract.methods.pretraining import PretrainingMethod
from trainer.contract.methods.reinforcement import ReinforcementMethod
from trainer.contract.methods.reward import RewardMethod
from trainer.contract.methods.supervised import SupervisedMethod

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
METHODS_BY_TYPE: dict[str, type[AnyMethod]] = {method.model_fields["type"].default: method for method in METHODS}
"""Every method by its name on the wire."""
