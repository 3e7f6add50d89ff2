"""SQL of projects and keys."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.keys.tables import ApiKey, Project
from service.kit.db import db_now


def project_by_name(session: Session, name: str) -> Project | None:
    """Return the project of this name, if there is one."""
    return session.scalar(select(Project).where(Project.name == name))


def live_key(session: Session, digest: str) -> ApiKey | None:
    """Return the key with this HMAC unless it was revoked."""
    return session.scalar(select(ApiKey).where(ApiKey.digest == digest, ApiKey.revoked_at.is_(None)))


def list_keys(session: Session) -> Sequence[tuple[ApiKey, Project]]:
    """Return all keys with their projects, oldest first."""
    query = select(ApiKey, Project).join(Project, Project.id == ApiKey.project_id).order_by(ApiKey.seq)
    return [(key, project) for key, project in session.execute(query)]


def revoke(session: Session, key_id: str) -> bool:
    """Mark a key as revoked; False where no live key has this id."""
    result = session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=db_now())
        .returning(ApiKey.id)
    )
    return result.first() is not None
