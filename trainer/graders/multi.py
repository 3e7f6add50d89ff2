"""`multi`: several graders, and a formula over their rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from trainer.graders.base import Name
from trainer.graders.formula import MAX_LENGTH, Formula, normalise_name
from trainer.graders.label_model import LabelModelGrader
from trainer.graders.leaf import Leaf, NamedGrader
from trainer.graders.python import PythonGrader
from trainer.graders.score_model import ScoreModelGrader
from trainer.graders.string_check import StringCheckGrader
from trainer.graders.text_similarity import TextSimilarityGrader

MOST_GRADERS = 16
Part = Annotated[
    StringCheckGrader | TextSimilarityGrader | PythonGrader | ScoreModelGrader | LabelModelGrader,
    Field(discriminator="type"),
]


def _one_or_many(value: Any) -> str:
    """Return which is meant: one grader has a `type` that is text."""
    if isinstance(value, dict):
        return "one" if isinstance(cast("dict[str, Any]", value).get("type"), str) else "many"
    return "one" if isinstance(value, Leaf) else "many"


def _limit_graders(value: Any) -> Any:
    """Count before each is read. Raises ValueError."""
    if isinstance(value, dict) and len(cast("dict[str, Any]", value)) > MOST_GRADERS:
        raise ValueError(f"it should have at most {MOST_GRADERS} items, not {len(cast('dict[str, Any]', value))}")
    return cast("Any", value)


Many = Annotated[dict[Name, Part], Field(min_length=1, max_length=MOST_GRADERS), BeforeValidator(_limit_graders)]


class MultiGrader(NamedGrader):
    """`graders` by the names that the formula uses, as OpenAI's guide has them.

    OpenAI's schema has one grader there; it counts by its own name.
    """

    type: Literal["multi"] = "multi"
    graders: Annotated[Annotated[Many, Tag("many")] | Annotated[Part, Tag("one")], Discriminator(_one_or_many)]
    calculate_output: str = Field(min_length=1, max_length=MAX_LENGTH)

    @model_validator(mode="after")
    def _formula_fits(self) -> MultiGrader:
        formula = self.parse_formula()
        known_names = {normalise_name(name) for name in self.list_named_graders()}
        for name in sorted(formula.names):
            if name not in known_names:
                raise ValueError(
                    f"calculate_output names {name!r}, which is not a grader: {', '.join(sorted(known_names))} are"
                )
        return self

    def list_named_graders(self) -> Mapping[str, Leaf]:
        """Return the graders by name."""
        if isinstance(self.graders, Leaf):
            return {self.graders.name: self.graders}
        return cast("Mapping[str, Leaf]", self.graders)

    def parse_formula(self) -> Formula:
        """Return the formula, read. Raises ValueError."""
        return Formula(self.calculate_output)
