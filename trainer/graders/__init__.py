"""Graders: OpenAI's rules for giving a model's answer a reward, one file a type. No torch, no HTTP.

The service runs them for `POST /v1/fine_tuning/alpha/graders/run`, and `reinforcement` trains against them:

    grader = GRADER.validate_python({"type": "string_check", "name": "right", "operation": "eq",
                                     "input": "{{sample.output_text}}", "reference": "{{item.answer}}"})
    graded = grade(grader, item={"answer": "巴黎"}, sample=Sample.of("巴黎"))
    graded.reward, graded.failed, graded.errors, graded.sub_rewards

`grade` never raises for what a row, an answer, a model or a grader's source does: it answers a reward of 0 and says
in `errors` why. Graders that ask a model or run Python need `tools`; `models` and `sources` say which do. A new type is
its file, and its name in `Grader` (and in `multi.Part`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from trainer.graders.base import (
    Ask,
    Failure,
    Grade,
    GradeErrors,
    Question,
    Reply,
    RunPython,
    Sample,
    Scene,
    TokenUsage,
    Tools,
    plain,
)
from trainer.graders.label_model import LabelModelGrader
from trainer.graders.leaf import Leaf
from trainer.graders.multi import MultiGrader
from trainer.graders.python import PythonGrader
from trainer.graders.score_model import ScoreModelGrader
from trainer.graders.string_check import StringCheckGrader
from trainer.graders.templates import item_paths
from trainer.graders.text_similarity import TextSimilarityGrader

Grader = Annotated[
    StringCheckGrader | TextSimilarityGrader | PythonGrader | ScoreModelGrader | MultiGrader,
    Field(discriminator="type"),
]
GRADER: TypeAdapter[StringCheckGrader | TextSimilarityGrader | PythonGrader | ScoreModelGrader | MultiGrader] = (
    TypeAdapter(Grader)
)
AnyGrader = Leaf | MultiGrader
NO_TOOLS = Tools()

__all__ = [
    "GRADER",
    "NO_TOOLS",
    "AnyGrader",
    "Ask",
    "Failure",
    "Grade",
    "GradeErrors",
    "Grader",
    "LabelModelGrader",
    "Leaf",
    "MultiGrader",
    "PythonGrader",
    "Question",
    "Reply",
    "RunPython",
    "Sample",
    "ScoreModelGrader",
    "StringCheckGrader",
    "TextSimilarityGrader",
    "TokenUsage",
    "Tools",
    "grade",
    "leaves",
    "models",
    "needs",
    "sources",
]


def grade(grader: AnyGrader, *, item: Any, sample: Sample, tools: Tools = NO_TOOLS) -> Grade:
    """Return what a grader says of an answer to a row. `item` is the row as a mapping; None has no fields."""
    scene = Scene(item=plain(item), sample=sample, tools=tools)
    if isinstance(grader, MultiGrader):
        return _graded_together(grader, scene)
    reward, errors = _graded(grader, grader.name, scene)
    return Grade(reward=reward, errors=errors, usage=scene.usage)


def leaves(grader: AnyGrader) -> Mapping[str, Leaf]:
    """Return the graders of a `multi` by name; of another, itself."""
    return grader.parts() if isinstance(grader, MultiGrader) else {grader.name: grader}


def models(grader: AnyGrader) -> frozenset[str]:
    """Return the models that a grader asks."""
    return frozenset(
        leaf.model for leaf in leaves(grader).values() if isinstance(leaf, (ScoreModelGrader, LabelModelGrader))
    )


def needs(grader: AnyGrader) -> tuple[tuple[str | int, ...], ...]:
    """Return the fields that its templates ask of every row, each as its keys and places."""
    texts = [template for leaf in leaves(grader).values() for template in leaf.templates()]
    return tuple(dict.fromkeys(path for text in texts for path in item_paths(text)))


def sources(grader: AnyGrader) -> tuple[str, ...]:
    """Return the Python that a grader runs."""
    return tuple(leaf.source for leaf in leaves(grader).values() if isinstance(leaf, PythonGrader))


def _graded(grader: Leaf, name: str, scene: Scene) -> tuple[float, GradeErrors]:
    try:
        return grader.reward(scene), GradeErrors()
    except Failure as failure:
        return 0.0, GradeErrors.of(failure, grader=name)
    except RecursionError:
        deep = Failure("other_error", "the row or the answer is nested too deeply")
        return 0.0, GradeErrors.of(deep, grader=name)


def _graded_together(grader: MultiGrader, scene: Scene) -> Grade:
    """Grade by each; where one failed there is no number to reckon with, so the whole reward is 0."""
    rewards: dict[str, float] = {}
    errors = GradeErrors()
    for name, part in grader.parts().items():
        rewards[name], own = _graded(part, name, scene)
        errors = errors.joined(own)
    reward = 0.0
    if not errors.any:
        try:
            reward = grader.formula().value(rewards)
        except ValueError as error:
            errors = GradeErrors.of(Failure("formula_parse_error", str(error)), grader=grader.name)
    return Grade(reward=reward, errors=errors, sub_rewards=rewards, usage=scene.usage)
