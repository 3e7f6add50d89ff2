"""The rules of keys: 32 random bytes behind a prefix, kept as an HMAC, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.keys import repository
from service.keys.errors import NameTaken, NoKey, ScopeMissing, WrongKey
from service.kit import ids
from service.kit.db import db_now
from service.kit.errors import Unauthenticated
from service.tables.keys import ApiKeyRow, ProjectRow

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
"""`read` looks, `write` makes, changes and deletes what is a project's own, `admin` manages projects and keys."""
DEFAULT_SCOPES: tuple[Scope, ...] = ("read", "write")
USE_NOTED_EVERY = 60.0
"""Seconds between two writes of a key's last use."""
KEPT_SECONDS = 24 * 3600.0
"""How long the answer to a creation with an `Idempotency-Key` is kept."""
_PREFIX = "burnish-"
_HINT_LENGTH = len(_PREFIX) + 6


@dataclass(frozen=True)
class Principal:
    """The caller: its key, and the project that the key belongs to."""

    project_id: str
    key_id: str
    scopes: frozenset[str] = frozenset(DEFAULT_SCOPES)
    use_noted: bool = field(default=True, compare=False)
    """Whether a use of the key was written lately, so that this one need not be."""

    def require_scope(self, scope: Scope) -> None:
        """Raise ScopeMissing unless the key has the scope."""
        if scope not in self.scopes:
            raise ScopeMissing(self.scopes, scope)


def create_key(
    session: Session,
    hmac_key: bytes,
    *,
    project: str,
    name: str,
    scopes: Iterable[Scope] = DEFAULT_SCOPES,
    expires_in: float | None = None,
) -> tuple[ApiKeyRow, str]:
    """Make a key for a project, which is created if it is new. Return the row and the key's text.

    `expires_in` is in seconds; None is never.
    """
    owner = repository.project_by_name(session, project) or create_project(session, project)
    return add_key(session, hmac_key, owner, name=name, scopes=scopes, expires_in=expires_in)


def create_project(session: Session, name: str) -> ProjectRow:
    """Make a project. Raises Conflict if the name is taken."""
    if repository.project_by_name(session, name) is not None:
        raise NameTaken(name)
    project = ProjectRow(id=ids.new_id(ids.PROJECT), name=name)
    with _one_of_the_name(session, name):
        session.add(project)
    session.refresh(project)
    return project


def add_key(
    session: Session,
    hmac_key: bytes,
    owner: ProjectRow,
    *,
    name: str,
    scopes: Iterable[Scope],
    expires_in: float | None,
) -> tuple[ApiKeyRow, str]:
    """Make a key for a project. Return the row and the key's text, which is kept nowhere."""
    token = _PREFIX + secrets.token_urlsafe(32)
    key = ApiKeyRow(
        id=ids.new_id(ids.KEY),
        project_id=owner.id,
        name=name,
        hint=token[:_HINT_LENGTH] + "…",
        digest=_hash_token(hmac_key, token),
        scopes=" ".join(scope for scope in SCOPES if scope in set(scopes)),
        expires_at=None if expires_in is None else db_now() + expires_in,
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, token


def require_token(authorization: str | None) -> str:
    """Return the key's text in an `Authorization` header; asks no database. Raises Unauthenticated with what to do."""
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise NoKey
    if not token.startswith(_PREFIX):
        raise WrongKey
    return token


def authenticate_header(session: Session, hmac_key: bytes, authorization: str | None) -> Principal:
    """Turn an `Authorization` header into a principal. Raises Unauthenticated with what to do."""
    digest = _hash_token(hmac_key, require_token(authorization))
    key = repository.live_key(session, digest, lately=USE_NOTED_EVERY)
    if key is None or not hmac.compare_digest(key.digest, digest):
        raise WrongKey
    if key.expired:
        raise Unauthenticated(
            "The API key provided has expired. `burnish-server keys create` makes a new one.", code="expired_api_key"
        )
    return Principal(
        project_id=key.project_id,
        key_id=key.id,
        scopes=frozenset(key.scopes.split()),
        use_noted=bool(key.used_lately),
    )


def find_reading_keys(session: Session, key_ids: Iterable[str]) -> set[str]:
    """Return those of the keys that may read now: asked again while a long answer is sent."""
    return {key_id for key_id, scopes in repository.live_scopes(session, key_ids).items() if "read" in scopes.split()}


def require_live(session: Session, project_id: str) -> None:
    """Raise Unauthenticated if a key's project was deleted since the key was checked.

    A change that is committed after this is seen by whoever deletes the project.
    """
    if not repository.is_live(session, project_id):
        raise Unauthenticated("The project of this API key was deleted.")


def rename_project(session: Session, project: ProjectRow, name: str) -> None:
    """Give a project another name. Raises Conflict if it is taken."""
    namesake = repository.project_by_name(session, name)
    if namesake is not None and namesake.id != project.id:
        raise NameTaken(name)
    with _one_of_the_name(session, name):
        project.name = name


@contextmanager
def _one_of_the_name(session: Session, name: str) -> Generator[None]:
    """Write what the block changes. Raises Conflict if another took the name at the same time."""
    try:
        with session.begin_nested():
            yield
            session.flush()
    except IntegrityError as error:
        raise NameTaken(name) from error


def _hash_token(hmac_key: bytes, token: str) -> str:
    return hmac.new(hmac_key, token.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
