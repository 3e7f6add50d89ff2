"""SQL of projects and keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Double, bindparam, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.kit.db import db_now
from service.kit.pagination import Scope, fetch_page
from service.tables.keys import ApiKeyRow, IdempotentAnswerRow, ProjectRow


def project_by_name(session: Session, name: str) -> ProjectRow | None:
    """Return the project of this name, if there is one."""
    return session.scalar(select(ProjectRow).where(ProjectRow.name == name, ProjectRow.deleted_at.is_(None)))


class LiveKey(NamedTuple):
    """What a request's check needs of a key, by the database's clock."""

    id: str
    project_id: str
    digest: str
    scopes: str
    expired: bool | None
    used_lately: bool | None


_LIVE_KEY = select(
    ApiKeyRow.id,
    ApiKeyRow.project_id,
    ApiKeyRow.digest,
    ApiKeyRow.scopes,
    (ApiKeyRow.expires_at <= db_now()).label("expired"),
    (ApiKeyRow.last_used_at > db_now() - bindparam("lately", type_=Double[float]())).label("used_lately"),
).where(ApiKeyRow.digest == bindparam("digest"), ApiKeyRow.revoked_at.is_(None))
# Put together once: every request asks it.


def live_key(session: Session, digest: str, *, lately: float) -> LiveKey | None:
    """Return the key with this HMAC unless it was revoked; an expired one is returned.

    Used lately it was, if its use was written in the last `lately` seconds.
    """
    row = session.execute(_LIVE_KEY, {"digest": digest, "lately": lately}).first()
    return None if row is None else LiveKey(*row)


def live_scopes(session: Session, key_ids: Iterable[str]) -> dict[str, str]:
    """Return the scopes of those of the keys that work: not revoked, not expired, their project not deleted."""
    query = select(ApiKeyRow.id, ApiKeyRow.scopes).join(ProjectRow, ProjectRow.id == ApiKeyRow.project_id)
    alive = or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > db_now())
    query = query.where(
        ApiKeyRow.id.in_(key_ids), ApiKeyRow.revoked_at.is_(None), ProjectRow.deleted_at.is_(None), alive
    )
    return {row.id: row.scopes for row in session.execute(query)}


def note_use(session: Session, key_id: str) -> None:
    """Write that a key was used now."""
    session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(last_used_at=db_now()))


def find_project(session: Session, project_id: str) -> ProjectRow | None:
    """Return a project, unless it was deleted."""
    return session.scalar(select(ProjectRow).where(ProjectRow.id == project_id, ProjectRow.deleted_at.is_(None)))


def is_live(session: Session, project_id: str) -> bool:
    """Return whether a project was not deleted, and keep it so until the transaction ends."""
    query = select(ProjectRow.seq).where(ProjectRow.id == project_id, ProjectRow.deleted_at.is_(None))
    return session.scalar(query.with_for_update(read=True)) is not None


def mark_deleted(session: Session, project_id: str) -> bool:
    """Close a project: no key of it works any more, its name is free. False if it is deleted already."""
    result = session.execute(
        update(ProjectRow)
        .where(ProjectRow.id == project_id, ProjectRow.deleted_at.is_(None))
        .values(deleted_at=db_now(), name=project_id)
        .returning(ProjectRow.id)
    )
    if result.first() is None:
        return False
    query = update(ApiKeyRow).where(ApiKeyRow.project_id == project_id, ApiKeyRow.revoked_at.is_(None))
    session.execute(query.values(revoked_at=db_now()))
    return True


def all_projects(session: Session) -> Sequence[ProjectRow]:
    """Return all projects, the oldest first."""
    return session.scalars(select(ProjectRow).where(ProjectRow.deleted_at.is_(None)).order_by(ProjectRow.seq)).all()


def project_page(session: Session, *, after: str | None, limit: int) -> tuple[Sequence[ProjectRow], bool]:
    """Return one page of the projects, the oldest first."""
    return fetch_page(
        session,
        select(ProjectRow).where(ProjectRow.deleted_at.is_(None)),
        scope=[],
        seq=ProjectRow.seq,
        public_id=ProjectRow.id,
        after=after,
        limit=limit,
        order="asc",
    )


def key_page(session: Session, project_id: str, *, after: str | None, limit: int) -> tuple[Sequence[ApiKeyRow], bool]:
    """Return one page of a project's keys, the oldest first."""
    scope: Scope = [(ApiKeyRow.project_id, project_id)]
    seq, public_id = ApiKeyRow.seq, ApiKeyRow.id
    return fetch_page(
        session, select(ApiKeyRow), scope=scope, seq=seq, public_id=public_id, after=after, limit=limit, order="asc"
    )


def key_of(session: Session, project_id: str, key_id: str) -> ApiKeyRow | None:
    """Return a project's key."""
    return session.scalar(select(ApiKeyRow).where(ApiKeyRow.id == key_id, ApiKeyRow.project_id == project_id))


def list_keys(session: Session) -> Sequence[tuple[ApiKeyRow, ProjectRow]]:
    """Return all keys with their projects, oldest first."""
    query = (
        select(ApiKeyRow, ProjectRow)
        .join(ProjectRow, ProjectRow.id == ApiKeyRow.project_id)
        .where(ProjectRow.deleted_at.is_(None))
    )
    return [(key, project) for key, project in session.execute(query.order_by(ApiKeyRow.seq))]


def mark_revoked(session: Session, key_id: str) -> str | None:
    """Mark a key as revoked and return its project; None if no live key has this id."""
    result = session.execute(
        update(ApiKeyRow)
        .where(ApiKeyRow.id == key_id, ApiKeyRow.revoked_at.is_(None))
        .values(revoked_at=db_now())
        .returning(ApiKeyRow.project_id)
    )
    return result.scalar()


def reserve_answer(session: Session, project_id: str, digest: str, fingerprint: str) -> bool:
    """Take an idempotency key; False if it is taken. Waits for a transaction that is taking it."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    result = session.execute(
        insert(IdempotentAnswerRow)
        .values(project_id=project_id, digest=digest, fingerprint=fingerprint, created_at=db_now())
        .on_conflict_do_nothing(index_elements=["project_id", "digest"])
        .returning(IdempotentAnswerRow.seq)
    )
    return result.first() is not None


def keep_answer(session: Session, project_id: str, digest: str, answer: str) -> None:
    """Write what the request that took the key is answered, sealed."""
    session.execute(
        update(IdempotentAnswerRow)
        .where(IdempotentAnswerRow.project_id == project_id, IdempotentAnswerRow.digest == digest)
        .values(answer=answer)
    )


def find_kept_answer(session: Session, project_id: str, digest: str) -> IdempotentAnswerRow | None:
    """Return what is kept for a key."""
    query = select(IdempotentAnswerRow).where(
        IdempotentAnswerRow.project_id == project_id, IdempotentAnswerRow.digest == digest
    )
    return session.scalar(query)


def forget_answers(session: Session, *, age: float) -> None:
    """Drop the answers that were given `age` seconds ago."""
    session.execute(delete(IdempotentAnswerRow).where(IdempotentAnswerRow.created_at < db_now() - age))
