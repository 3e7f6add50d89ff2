"""Where a job's metrics are sent besides its own events: OpenAI's `integrations`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

MOST = 5
_WORD = r"[^\s/\\#?%:\x00-\x1f\x7f]+"
_IN_A_PATH = f"^{_WORD}( +{_WORD})*$"
_NOT_BLANK = r"\S"


def _require_path_part(value: str) -> str:
    """Weights & Biases makes a part of an address of it; its own rule is `wandb.Settings.validate_project`."""
    if not re.fullmatch(_IN_A_PATH, value):
        raise ValueError("must have none of / \\ # ? % : and no control character, and no space at its ends")
    return value


def _not_blank(value: str) -> str:
    if not re.search(_NOT_BLANK, value):
        raise ValueError("must have more than spaces")
    return value


def _all_different(value: list[str]) -> list[str]:
    twice = next((tag for place, tag in enumerate(value) if tag in value[:place]), None)
    if twice is not None:
        raise ValueError(f"has the tag {twice!r} twice; remove one")
    return value


def _none_for_null(value: object) -> object:
    return [] if value is None else value


# The patterns are in the schema alone: the sentences of the functions say more than that one does not match.
_Part = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128),
    AfterValidator(_require_path_part),
    Field(json_schema_extra={"pattern": _IN_A_PATH}),
]
_Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128),
    AfterValidator(_not_blank),
    Field(json_schema_extra={"pattern": _NOT_BLANK}),
]
_Tag = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64),
    AfterValidator(_not_blank),
    Field(json_schema_extra={"pattern": _NOT_BLANK}),
]
_TagList = Annotated[
    list[_Tag], Field(max_length=64, json_schema_extra={"uniqueItems": True}), AfterValidator(_all_different)
]
_Tags = Annotated[_TagList, BeforeValidator(_none_for_null, json_schema_input_type=_TagList | None)]


class WandbSettings(BaseModel):
    """Where in Weights & Biases the job's run is, and how it is shown there."""

    model_config = ConfigDict(extra="forbid")

    project: _Part = Field(description="The project of the run; it is created if there is none of that name.")
    name: _Name | None = Field(None, description="The run's name; the job's id without one.")
    entity: _Part | None = Field(
        None, description="The team or user of the project; without one, the default of the worker's API key."
    )
    tags: _Tags = Field(
        default=[], description="They go to the run as they are, after `burnish/finetune`, the base's and the job's."
    )


class WandbIntegration(BaseModel):
    """Weights & Biases, the one integration that there is."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["wandb"]
    wandb: WandbSettings


def _one_run_each(value: Sequence[WandbIntegration]) -> Sequence[WandbIntegration]:
    runs: set[tuple[str | None, str]] = set()
    for integration in value:
        place = (integration.wandb.entity, integration.wandb.project)
        if place in runs:
            raise ValueError(f"name the project {integration.wandb.project!r} twice; a job has one run in a project")
        runs.add(place)
    return value


Integrations = Annotated[list[WandbIntegration], Field(max_length=MOST), AfterValidator(_one_run_each)]
