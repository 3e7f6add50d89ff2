"""What graders share: a name; and graders by themselves: a reward, and templates that are read when the grader is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

from pydantic import Field, model_validator

from trainer.frozen import Exact
from trainer.graders.base import Name, Scene
from trainer.graders.templates import check_templates


class NamedGrader(Exact):
    """A grader of any type. Without a name, as in OpenAI's guides, it is named after its type."""

    name: Name = Field(default_factory=str, description="By default the grader's type.")

    @model_validator(mode="before")
    @classmethod
    def _name_by_type(cls, value: Any) -> Any:
        # Put in before the check, so that the name counts as set and every answer shows it.
        if not isinstance(value, dict):
            return value
        return {"name": cls.model_fields["type"].default, **cast("dict[str, Any]", value)}


class Leaf(NamedGrader):
    """A grader by itself, not made up of others. Its file says how it comes to a reward."""

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
