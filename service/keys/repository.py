"""SQL of projects and keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Double, bindparam, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.keys.tables import ApiKey, IdempotentAnswer, Project
from service.kit.db import db_now
from service.kit.pagination import Scope, fetch_page


def project_by_name(session: Session, name: str) -> Project | None:
    """Return the project of this name, if there is one."""
    return session.scalar(select(Project).where(Project.name == name, Project.deleted_at.is_(None)))


class LiveKey(NamedTuple):
    """What a request's check needs of a key, by the database's clock."""

    id: str
    project_id: str
    digest: str
    scopes: str
    expired: bool | None
    used_lately: bool | None


_LIVE_KEY = select(
    ApiKey.id,
    ApiKey.project_id,
    ApiKey.digest,
    ApiKey.scopes,
    (ApiKey.expires_at <= db_now()).label("expired"),
    (ApiKey.last_used_at > db_now() - bindparam("lately", type_=Double[float]())).label("used_lately"),
).where(ApiKey.digest == bindparam("digest"), ApiKey.revoked_at.is_(None))
# Put together once: every request asks it.


def live_key(session: Session, digest: str, *, lately: float) -> LiveKey | None:
    """Return the key with this HMAC unless it was revoked; an expired one is returned.

    Used lately it was, if its use was written in the last `lately` seconds.
    """
    row = session.execute(_LIVE_KEY, {"digest": digest, "lately": lately}).first()
    return None if row is None else LiveKey(*row)


def live_scopes(session: Session, key_ids: Iterable[str]) -> dict[str, str]:
    """Return the scopes of those of the keys that work: not revoked, not expired, their project not deleted."""
    query = select(ApiKey.id, ApiKey.scopes).join(Project, Project.id == ApiKey.project_id)
    alive = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > db_now())
    query = query.where(ApiKey.id.in_(key_ids), ApiKey.revoked_at.is_(None), Project.deleted_at.is_(None), alive)
    return {row.id: row.scopes for row in session.execute(query)}


def note_use(session: Session, key_id: str) -> None:
    """Write that a key was used now."""
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=db_now()))


def project(session: Session, project_id: str) -> Project | None:
    """Return a project, unless it was deleted."""
    return session.scalar(select(Project).where(Project.id == project_id, Project.deleted_at.is_(None)))


def is_live(session: Session, project_id: str) -> bool:
    """Tell whether a project was not deleted, and keep it so until the transaction ends."""
    query = select(Project.seq).where(Project.id == project_id, Project.deleted_at.is_(None))
    return session.scalar(query.with_for_update(read=True)) is not None


def mark_deleted(session: Session, project_id: str) -> bool:
    """Close a project: no key of it works any more, its name is free. False where it is deleted already."""
    marked = session.execute(
        update(Project)
        .where(Project.id == project_id, Project.deleted_at.is_(None))
        .values(deleted_at=db_now(), name=project_id)
        .returning(Project.id)
    )
    if marked.first() is None:
        return False
    query = update(ApiKey).where(ApiKey.project_id == project_id, ApiKey.revoked_at.is_(None))
    session.execute(query.values(revoked_at=db_now()))
    return True


def projects(session: Session) -> Sequence[Project]:
    """Return all projects, the oldest first."""
    return session.scalars(select(Project).where(Project.deleted_at.is_(None)).order_by(Project.seq)).all()


def project_page(session: Session, *, after: str | None, limit: int) -> tuple[Sequence[Project], bool]:
    """Return one page of the projects, the oldest first."""
    return fetch_page(
        session,
        select(Project).where(Project.deleted_at.is_(None)),
        scope=[],
        seq=Project.seq,
        public_id=Project.id,
        after=after,
        limit=limit,
        order="asc",
    )


def key_page(session: Session, project_id: str, *, after: str | None, limit: int) -> tuple[Sequence[ApiKey], bool]:
    """Return one page of a project's keys, the oldest first."""
    scope: Scope = [(ApiKey.project_id, project_id)]
    seq, public_id = ApiKey.seq, ApiKey.id
    return fetch_page(
        session, select(ApiKey), scope=scope, seq=seq, public_id=public_id, after=after, limit=limit, order="asc"
    )


def key_of(session: Session, project_id: str, key_id: str) -> ApiKey | None:
    """Return a project's key."""
    return session.scalar(select(ApiKey).where(ApiKey.id == key_id, ApiKey.project_id == project_id))


def list_keys(session: Session) -> Sequence[tuple[ApiKey, Project]]:
    """Return all keys with their projects, oldest first."""
    query = select(ApiKey, Project).join(Project, Project.id == ApiKey.project_id).where(Project.deleted_at.is_(None))
    return [(key, project) for key, project in session.execute(query.order_by(ApiKey.seq))]


def revoke(session: Session, key_id: str) -> str | None:
    """Mark a key as revoked and return its project; None where no live key has this id."""
    result = session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=db_now())
        .returning(ApiKey.project_id)
    )
    return result.scalar()


def reserve_answer(session: Session, project_id: str, digest: str, fingerprint: str) -> bool:
    """Take an idempotency key; False where it is taken. Waits for a transaction that is taking it."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    result = session.execute(
        insert(IdempotentAnswer)
        .values(project_id=project_id, digest=digest, fingerprint=fingerprint, created_at=db_now())
        .on_conflict_do_nothing(index_elements=["project_id", "digest"])
        .returning(IdempotentAnswer.seq)
    )
    return result.first() is not None


def keep_answer(session: Session, project_id: str, digest: str, answer: str) -> None:
    """Write what the request that took the key is answered, sealed."""
    session.execute(
        update(IdempotentAnswer)
        .where(IdempotentAnswer.project_id == project_id, IdempotentAnswer.digest == digest)
        .values(answer=answer)
    )


def kept_answer(session: Session, project_id: str, digest: str) -> IdempotentAnswer | None:
    """Return what is kept for a key."""
    query = select(IdempotentAnswer).where(IdempotentAnswer.project_id == project_id, IdempotentAnswer.digest == digest)
    return session.scalar(query)


def forget_answers(session: Session, *, age: float) -> None:
    """Drop the answers that were given `age` seconds ago."""
    session.execute(delete(IdempotentAnswer).where(IdempotentAnswer.created_at < db_now() - age))
