"""The two kinds of messages that everything on the wire and in `job.json` is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable message that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Exact(Frozen):
    """A message of numbers that takes no text and no boolean for one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
