"""`label_model`: a model puts the answer into one of several classes. OpenAI has it inside of `multi` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.graders.base import Failure, GraderQuestion, Scene
from trainer.graders.inputs import Input, fill_messages
from trainer.graders.leaf import Leaf
from trainer.graders.replies import parse_reply

Label = Annotated[str, Field(min_length=1, max_length=256)]


class LabelModelGrader(Leaf):
    """1 if the model's label is one of `passing_labels`, else 0."""

    type: Literal["label_model"] = "label_model"
    model: str = Field(min_length=1, max_length=256)
    input: Input
    labels: Annotated[list[Label], Field(min_length=1, max_length=256)]
    passing_labels: Annotated[list[Label], Field(min_length=1, max_length=256)]

    @model_validator(mode="after")
    def _check_labels(self) -> LabelModelGrader:
        known_labels = set(self.labels)
        unknown = next((label for label in self.passing_labels if label not in known_labels), None)
        if unknown is not None:
            raise ValueError(f"passing_labels has {unknown!r}, which is not among the labels")
        return self

    def list_templates(self) -> Sequence[str]:
        """Return the messages' texts."""
        return [text for message in self.input for text in message.iter_texts()]

    def compute_reward(self, scene: Scene) -> float:
        """Ask the model and return whether its label passes. Raises Failure."""
        label = {"type": "string", "enum": self.labels}
        question = GraderQuestion(
            model=self.model,
            messages=fill_messages(self.input, scene),
            sampling={"temperature": 0.0},
            schema_={"type": "object", "properties": {"result": label}, "required": ["result"]},
        )
        chosen_label = parse_reply(
            scene.ask_model(question),
            expected_result="one of the labels, or JSON with it as `result`",
            text_counts=True,
        )
        if chosen_label not in self.labels:
            raise Failure(
                "model_grader_parse_error", f"the model's label {str(chosen_label)[:80]!r} is not among the labels"
            )
        return float(chosen_label in self.passing_labels)
