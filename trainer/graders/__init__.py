"""Graders: OpenAI's rules for giving a model's answer a reward, one file a type. No torch, no HTTP.

The service runs them for `POST /v1/fine_tuning/alpha/graders/run`, and `reinforcement` trains against them:

    grader = GRADER.validate_python({"type": "string_check", "name": "right", "operation": "eq",
                                     "input": "{{sample.output_text}}", "reference": "{{item.answer}}"})
    graded = grade_sample(grader, item={"answer": "巴黎"}, sample=Sample.from_text("巴黎"))
    graded.reward, graded.failed, graded.errors, graded.sub_rewards

`grade_sample` never raises for what a row, an answer, a model or a grader's source does: the reward is 0 and `errors`
says why. Graders that ask a model or run Python need `tools`; `grader_models` and `python_sources` say which do. A new
type is its file, and its name in `Grader` (and in `multi.Part`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from trainer.graders.base import (
    AskGraderModel,
    Failure,
    Grade,
    GradeErrors,
    GraderQuestion,
    Reply,
    RunPython,
    Sample,
    Scene,
    TokenUsage,
    Tools,
    as_mapping,
)
from trainer.graders.label_model import LabelModelGrader
from trainer.graders.leaf import Leaf
from trainer.graders.multi import MultiGrader
from trainer.graders.python import PythonGrader
from trainer.graders.score_model import ScoreModelGrader
from trainer.graders.string_check import StringCheckGrader
from trainer.graders.templates import item_paths, sole_item_path
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
    "AskGraderModel",
    "Failure",
    "Grade",
    "GradeErrors",
    "Grader",
    "GraderQuestion",
    "LabelModelGrader",
    "Leaf",
    "MultiGrader",
    "PythonGrader",
    "Reply",
    "RunPython",
    "Sample",
    "ScoreModelGrader",
    "StringCheckGrader",
    "TextSimilarityGrader",
    "TokenUsage",
    "Tools",
    "grade_sample",
    "grader_models",
    "leaf_graders",
    "python_sources",
    "reference_fields",
    "required_fields",
]


def grade_sample(grader: AnyGrader, *, item: Any, sample: Sample, tools: Tools = NO_TOOLS) -> Grade:
    """Return what a grader says of an answer to a row. `item` is the row as a mapping; None has no fields."""
    scene = Scene(item=as_mapping(item), sample=sample, tools=tools)
    if isinstance(grader, MultiGrader):
        return _grade_parts(grader, scene)
    reward, errors = _grade_leaf(grader, grader.name, scene)
    return Grade(reward=reward, errors=errors, usage=scene.usage)


def leaf_graders(grader: AnyGrader) -> Mapping[str, Leaf]:
    """Return the graders of a `multi` by name; of another, itself."""
    return grader.list_named_graders() if isinstance(grader, MultiGrader) else {grader.name: grader}


def grader_models(grader: AnyGrader) -> frozenset[str]:
    """Return the models that a grader uses."""
    return frozenset(
        leaf.model for leaf in leaf_graders(grader).values() if isinstance(leaf, (ScoreModelGrader, LabelModelGrader))
    )


def required_fields(grader: AnyGrader) -> tuple[tuple[str | int, ...], ...]:
    """Return the fields that its templates ask of every row, each as its keys and places."""
    texts = [template for leaf in leaf_graders(grader).values() for template in leaf.list_templates()]
    return tuple(dict.fromkeys(path for text in texts for path in item_paths(text)))


def reference_fields(grader: AnyGrader) -> tuple[tuple[str | int, ...], ...]:
    """Return those fields that are, each by itself, what an answer must contain: empty, every answer would."""
    leaves = leaf_graders(grader).values()
    texts = [leaf.reference for leaf in leaves if isinstance(leaf, StringCheckGrader) and leaf.looks_inside]
    return tuple(dict.fromkeys(path for text in texts if (path := sole_item_path(text))))


def python_sources(grader: AnyGrader) -> tuple[str, ...]:
    """Return the Python that a grader runs."""
    return tuple(leaf.source for leaf in leaf_graders(grader).values() if isinstance(leaf, PythonGrader))


def _grade_leaf(grader: Leaf, name: str, scene: Scene) -> tuple[float, GradeErrors]:
    try:
        return grader.compute_reward(scene), GradeErrors()
    except Failure as failure:
        return 0.0, GradeErrors.from_failure(failure, grader=name)
    except RecursionError:
        deep = Failure("other_error", "the row or the answer is nested too deeply")
        return 0.0, GradeErrors.from_failure(deep, grader=name)


def _grade_parts(grader: MultiGrader, scene: Scene) -> Grade:
    """Grade by each; if one failed there is no number to compute with, so the whole reward is 0."""
    rewards: dict[str, float] = {}
    errors = GradeErrors()
    for name, part in grader.list_named_graders().items():
        rewards[name], own = _grade_leaf(part, name, scene)
        errors = errors.join_errors(own)
    reward = 0.0
    if not errors.has_any:
        try:
            reward = grader.parse_formula().evaluate_formula(rewards)
        except ValueError as error:
            errors = GradeErrors.from_failure(Failure("formula_parse_error", str(error)), grader=grader.name)
    return Grade(reward=reward, errors=errors, sub_rewards=rewards, usage=scene.usage)
