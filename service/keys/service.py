"""The rules of keys: 32 random bytes behind a prefix, kept as an HMAC, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.keys import repository
from service.keys.tables import ApiKey, Project
from service.kit import ids
from service.kit.errors import Unauthenticated

KEPT_SECONDS = 24 * 3600.0
"""How long the answer to a creation with an `Idempotency-Key` is kept."""
_PREFIX = "burnish-"
_HINT_LENGTH = len(_PREFIX) + 6


@dataclass(frozen=True)
class Principal:
    """Who asks: the key, and the project whose objects it may see."""

    project_id: str
    key_id: str


def create_key(session: Session, hmac_key: bytes, *, project: str, name: str) -> tuple[ApiKey, str]:
    """Make a key for a project, which is made too where it is new. Return the row and the key's text."""
    owner = repository.project_by_name(session, project)
    if owner is None:
        owner = Project(id=ids.new_id(ids.PROJECT), name=project)
        session.add(owner)
        session.flush()
    token = _PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        id=ids.new_id(ids.KEY),
        project_id=owner.id,
        name=name,
        hint=token[:_HINT_LENGTH] + "…",
        digest=_digest(hmac_key, token),
    )
    session.add(key)
    session.flush()
    return key, token


def authenticate(session: Session, hmac_key: bytes, authorization: str | None) -> Principal:
    """Turn an `Authorization` header into a principal. Raises Unauthenticated with what to do."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(
            "You didn't provide an API key. Send it as the header `Authorization: Bearer YOUR_KEY`; the embedded "
            "service writes the first key to client.json in its data folder."
        )
    digest = _digest(hmac_key, token.strip())
    key = repository.live_key(session, digest)
    if key is None or not hmac.compare_digest(key.digest, digest):
        raise Unauthenticated(
            "Incorrect API key provided: it is unknown here or was revoked. "
            "`burnish-server keys create` makes a new one."
        )
    return Principal(project_id=key.project_id, key_id=key.id)


def _digest(hmac_key: bytes, token: str) -> str:
    return hmac.new(hmac_key, token.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
