"""What the iterations of a job on the policy's own answers need to know of its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from trainer.contract.methods.onpolicy import OnPolicyHyperparameters
from trainer.engine.onpolicy.prompts import PromptData
from trainer.engine.onpolicy.roles import Roles
from trainer.engine.onpolicy.updates import OnPolicy
from trainer.engine.recipe import Recipe


class LearnerRecipe(Recipe[PromptData]):
    """A recipe whose `algorithm` learns from answers; `prepare_model` sets it and `roles`."""

    roles: Roles
    algorithm: OnPolicy[Any, Any]

    @property
    def requested_hyperparameters(self) -> OnPolicyHyperparameters:
        """The hyperparameters as they were asked for."""
        return cast(OnPolicyHyperparameters, self.hyperparameters)

    @property
    def prompts_an_iteration(self) -> int:
        """How many prompts an iteration takes."""
        return self.requested_hyperparameters.prompts_an_iteration(len(self.data.training.rows))

    def review_iteration(self, facts: Mapping[str, float]) -> None:
        """Look at an iteration's report; nothing by default."""
