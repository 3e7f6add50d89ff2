"""`string_check`: 1 if two texts compare as asked, else 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import model_validator

from trainer.graders.base import Scene, Template
from trainer.graders.leaf import Leaf
from trainer.graders.templates import fill_template

Operation = Literal["eq", "ne", "like", "ilike"]
_COMPARE: Mapping[Operation, Callable[[str, str], bool]] = {
    "eq": lambda text, reference: text == reference,
    "ne": lambda text, reference: text != reference,
    "like": lambda text, reference: reference in text,
    "ilike": lambda text, reference: reference.casefold() in text.casefold(),
}


class StringCheckGrader(Leaf):
    """`eq` and `ne` compare whole texts; `like` looks for the reference in the input, `ilike` whatever its case."""

    type: Literal["string_check"] = "string_check"
    input: Template
    reference: Template
    operation: Operation

    @property
    def looks_inside(self) -> bool:
        """Whether the reference is looked for inside the input."""
        return self.operation in ("like", "ilike")

    @model_validator(mode="after")
    def _something_to_look_for(self) -> StringCheckGrader:
        if self.looks_inside and not self.reference:
            raise ValueError(
                f"reference: is empty, and every answer has an empty text in it: give {self.operation} something to "
                "look for, or use eq"
            )
        return self

    def list_templates(self) -> Sequence[str]:
        return self.input, self.reference

    def compute_reward(self, scene: Scene) -> float:
        """Return 1 or 0. Raises Failure."""
        return float(_COMPARE[self.operation](fill_template(self.input, scene), fill_template(self.reference, scene)))
