from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from service.kit.errors import InvalidRequest
from service.kit.problem_words import join_alternatives, word_problem
from service.kit.problems import MOST_PROBLEMS, refuse_many_problems


class TextItem(BaseModel):
    type: Literal["text"]
    text: str = Field(min_length=1, max_length=8)


class Square(BaseModel):
    kind: Literal["square"]


class Circle(BaseModel):
    kind: Literal["circle"]


class Everything(BaseModel):
    model_config = ConfigDict(extra="forbid")

    messages: Annotated[tuple[TextItem, ...], Field(min_length=1, max_length=2)] = (TextItem(type="text", text="好"),)
    part_ids: Annotated[list[str], Field(min_length=2)] | None = None
    content: str | list[TextItem] | None = None
    epochs: Literal["auto"] | Annotated[int, Field(ge=1, le=50, strict=True)] = "auto"
    rate: Annotated[float, Field(gt=0, lt=1.5)] = 1
    flag: bool = False
    metadata: Annotated[dict[str, str], Field(max_length=1)] = Field(default_factory=dict)
    slug: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    shape: Annotated[Square | Circle, Field(discriminator="kind")] = Square(kind="square")
    even: int = 0

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("要是偶数")
        return value


def worded(values: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        Everything.model_validate(values)
    tags = {"str", "list[TextItem]", "constrained-int", "int", "literal['auto']", "square", "circle"}
    problems = [
        word_problem(tuple(str(part) for part in item["loc"] if part not in tags), dict(item))
        for item in caught.value.errors()
    ]
    return {".".join(place): sentence for place, sentence in join_alternatives(problems).items()}


SENTENCES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "an empty list": ({"messages": []}, {"messages": "give at least 1 message"}),
    "a long list": ({"messages": [{"type": "text", "text": "好"}] * 3}, {"messages": "give at most 2 messages"}),
    "a short list of two words": ({"part_ids": ["a"]}, {"part_ids": "give at least 2 part ids"}),
    "a large object": ({"metadata": {"甲": "1", "乙": "2"}}, {"metadata": "give at most 1 item"}),
    "no list": ({"messages": 7}, {"messages": "must be a list"}),
    "no object": ({"messages": ["好"]}, {"messages.0": "must be an object"}),
    "none of the kinds": ({"content": 7}, {"content": "must be a string or a list"}),
    "a fault inside of one kind": (
        {"content": [{"type": "image"}]},
        {
            "content.0.type": "must be 'text'",
            "content.0.text": "required, but it is missing",
        },
    ),
    "neither the word nor a number": ({"epochs": "3"}, {"epochs": "must be 'auto' or a whole number"}),
    "too small": ({"epochs": 0}, {"epochs": "must be 'auto' or at least 1"}),
    "too large": ({"epochs": 51}, {"epochs": "must be 'auto' or at most 50"}),
    "not above": ({"rate": 0}, {"rate": "must be greater than 0"}),
    "not below": ({"rate": 1.5}, {"rate": "must be less than 1.5"}),
    "no number": ({"rate": "x"}, {"rate": "must be a number"}),
    "no truth": ({"flag": "x"}, {"flag": "must be true or false"}),
    "an empty text": (
        {"messages": [{"type": "text", "text": ""}]},
        {"messages.0.text": "must have at least 1 character"},
    ),
    "a long text": (
        {"messages": [{"type": "text", "text": "山" * 9}]},
        {"messages.0.text": "must have at most 8 characters"},
    ),
    "another pattern": ({"slug": "客服"}, {"slug": "must match the pattern ^[a-z]+$"}),
    "an unknown kind": ({"shape": {"kind": "star"}}, {"shape": "has the kind 'star'; use one of 'square', 'circle'"}),
    "no kind": ({"shape": {}}, {"shape": "needs a kind"}),
    "unknown": ({"修": 1}, {"修": "unknown argument; check its spelling"}),
    "a sentence of our own": ({"even": 3}, {"even": "要是偶数"}),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_each_problem_has_one_plain_sentence(name: str) -> None:
    values, sentences = SENTENCES[name]
    assert worded(values) == sentences


def test_many_problems_are_counted_and_the_first_worded() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(dict[str, int])
    with pytest.raises(InvalidRequest, match=r"1001 problems.*among them k0: must be a whole number; k1") as caught:
        refuse_many_problems(adapter, {f"k{number}": "x" for number in range(MOST_PROBLEMS + 1)})
    assert "Input should" not in caught.value.message
