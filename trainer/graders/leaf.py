"""What graders by themselves share: a name, a reward, and templates that are read when the grader is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from pydantic import model_validator

from trainer.frozen import Exact
from trainer.graders.base import Name, Scene
from trainer.graders.templates import check_templates


class Leaf(Exact):
    """A grader by itself, not made up of others. Its file says how it comes to a reward."""

    name: Name

    @abstractmethod
    def compute_reward(self, scene: Scene) -> float:
        """Return the reward. Raises Failure."""

    def list_templates(self) -> Sequence[str]:
        """Return the texts in which `{{…}}` stands for something."""
        return ()

    @model_validator(mode="after")
    def _readable_templates(self) -> Leaf:
        check_templates(self.list_templates())
        return self
