"""What the wire shows of a deletion."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class ProjectDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["organization.project.deleted"] = "organization.project.deleted"
    deleted: Literal[True] = True
