"""What the wire shows of projects and keys, after OpenAI's administration API."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from service.keys.service import DEFAULT_SCOPES, SCOPES, Scope
from service.tables.keys import ApiKeyRow, ProjectRow

_TEN_YEARS = 10 * 366 * 24 * 3600


def _require_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("use printable characters")
    return text


Name = Annotated[
    str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True), AfterValidator(_require_printable)
]


class ProjectCreate(BaseModel):
    """The body of a project's creation."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(examples=["support desk"])


class ProjectUpdate(BaseModel):
    """The body of a project's change."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = Field(None, examples=["support desk"])


class ProjectObject(BaseModel):
    """A project, in the form of OpenAI's administration API."""

    id: str
    object: Literal["organization.project"] = "organization.project"
    name: str
    created_at: int
    status: Literal["active"] = "active"

    @classmethod
    def from_row(cls, project: ProjectRow) -> ProjectObject:
        return cls(id=project.id, name=project.name, created_at=int(project.created_at))


class KeyCreate(BaseModel):
    """The body of a key's creation."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(examples=["ci"])
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))] = list(DEFAULT_SCOPES)
    expires_in: int | None = Field(None, ge=60, le=_TEN_YEARS, strict=True, description="Seconds; without it, never.")


class KeyServiceAccount(BaseModel):
    """The account that a key belongs to: itself, since no person owns a key here."""

    id: str
    name: str
    created_at: int
    role: Literal["member", "owner"]


class KeyOwner(BaseModel):
    """Who owns a key, in OpenAI's form."""

    type: Literal["service_account"] = "service_account"
    service_account: KeyServiceAccount


class KeyObject(BaseModel):
    """OpenAI's key of a project; `scopes` and `revoked_at` are Burnish's."""

    id: str
    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    name: str
    redacted_value: str
    created_at: int
    last_used_at: int | None
    owner: KeyOwner
    owner_project_access: Literal["active", "inactive"] = Field(description="`inactive` once it is revoked or expired.")
    scopes: list[Scope]
    expires_at: int | None
    revoked_at: int | None

    @classmethod
    def from_row(cls, key: ApiKeyRow) -> KeyObject:
        return cls.model_validate(
            {
                "id": key.id,
                "name": key.name,
                "redacted_value": key.hint,
                "owner": {"service_account": _show_account(key)},
                "owner_project_access": "active" if _works_now(key) else "inactive",
                "created_at": int(key.created_at),
                "last_used_at": None if key.last_used_at is None else int(key.last_used_at),
                "scopes": key.scopes.split(),
                "expires_at": None if key.expires_at is None else int(key.expires_at),
                "revoked_at": None if key.revoked_at is None else int(key.revoked_at),
            }
        )


def _show_account(key: ApiKeyRow) -> KeyServiceAccount:
    return KeyServiceAccount(
        id=key.id,
        name=key.name,
        created_at=int(key.created_at),
        role="owner" if "admin" in key.scopes.split() else "member",
    )


def _works_now(key: ApiKeyRow) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > time.time())


class NewKey(KeyObject):
    """A key as its creation answers: `value` is shown only now."""

    value: str


class KeyDeleted(BaseModel):
    """The answer to a revocation."""

    id: str
    object: Literal["organization.project.api_key.deleted"] = "organization.project.api_key.deleted"
    deleted: Literal[True] = True
