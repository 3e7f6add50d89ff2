"""What the wire shows of the audit log, after OpenAI's administration API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict

from service.kit.members import LEFT_OUT_IF_NULL
from service.tables.audit import AuditRow, split_count


class AuditServiceAccount(BaseModel):
    """Whose key it is: Burnish's keys belong to no person, and each is an account of its own."""

    id: str


class AuditKey(BaseModel):
    """The API key that was used."""

    id: str
    type: Literal["service_account"] = "service_account"
    service_account: AuditServiceAccount


class AuditUser(BaseModel):
    """The operating system's name of the operator."""

    id: str


class AuditSession(BaseModel):
    """A session on the server itself, by the command `burnish-server`."""

    user: AuditUser
    ip_address: Annotated[str | None, LEFT_OUT_IF_NULL] = None


class AuditActor(BaseModel):
    """Who did it: an API key, or an operator on the server."""

    type: Literal["api_key", "session"]
    api_key: Annotated[AuditKey | None, LEFT_OUT_IF_NULL] = None
    session: Annotated[AuditSession | None, LEFT_OUT_IF_NULL] = None


class AuditProject(BaseModel):
    """The project that it was about; `name` is left out once the project is deleted."""

    id: str
    name: Annotated[str | None, LEFT_OUT_IF_NULL] = None


class AuditLogObject(BaseModel):
    """OpenAI's entry of the audit log. A member with the name of the `type` has the object's `id`, as there.

    `outcome`, `status_code`, `object_id`, `request_id`, `ip_address` and `count` are Burnish's. `actor` is left out for
    what the service did of its own accord. `count` is above 1 for refused calls of one kind that came within a minute:
    the other members are those of the last.
    """

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["organization.audit_log"] = "organization.audit_log"
    type: str
    effective_at: int
    actor: Annotated[AuditActor | None, LEFT_OUT_IF_NULL] = None
    project: Annotated[AuditProject | None, LEFT_OUT_IF_NULL] = None
    outcome: Literal["succeeded", "replayed", "failed"]
    status_code: int | None
    object_id: str | None
    request_id: str | None
    ip_address: str | None
    count: int = 1

    @classmethod
    def from_row(cls, row: AuditRow, names: dict[str, str]) -> AuditLogObject:
        """Show a row; `names` are those of projects."""
        count, request_id = split_count(row.request_id)
        fields: dict[str, Any] = {
            "id": row.id,
            "type": row.type,
            "effective_at": int(row.at),
            "actor": _show_actor(row),
            "project": row.project_id and AuditProject(id=row.project_id, name=names.get(row.project_id)),
            "outcome": row.outcome,
            "status_code": row.status_code,
            "object_id": row.object_id,
            "request_id": request_id,
            "ip_address": row.address,
            "count": count,
            row.type: {"id": row.object_id},
        }
        return cls.model_validate(fields)


def _show_actor(row: AuditRow) -> AuditActor | None:
    if row.key_id is not None:
        return AuditActor(
            type="api_key", api_key=AuditKey(id=row.key_id, service_account=AuditServiceAccount(id=row.key_id))
        )
    if row.operator is not None:
        return AuditActor(type="session", session=AuditSession(user=AuditUser(id=row.operator)))
    return None
