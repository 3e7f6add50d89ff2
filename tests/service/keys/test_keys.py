from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from sqlalchemy import update

from service.context import Context
from service.keys import repository
from service.keys.service import authenticate_header, create_key
from service.kit.db import db_now
from service.kit.errors import Unauthenticated
from service.tables.keys import ApiKeyRow
from tests.fixtures.service import make_context


@pytest.fixture
def context(tmp_path: Path) -> Generator[Context, None, None]:
    made = make_context(tmp_path)
    yield made
    made.db.close()


def test_a_key_opens_its_project_until_it_is_revoked(context: Context) -> None:
    with context.db.write() as session:
        key, token = create_key(session, context.hmac_key, project="客服", name="ci")
        other, _ = create_key(session, context.hmac_key, project="other", name="ci")
        assert key.project_id != other.project_id
    with context.db.read() as session:
        principal = authenticate_header(session, context.hmac_key, f"Bearer {token}")
        assert (principal.project_id, principal.key_id) == (key.project_id, key.id)
        with pytest.raises(Unauthenticated):
            authenticate_header(session, b"another secret key of this service", f"Bearer {token}")
    with context.db.write() as session:
        assert repository.mark_revoked(session, key.id)
        assert not repository.mark_revoked(session, key.id)
    with context.db.read() as session, pytest.raises(Unauthenticated, match="revoked"):
        authenticate_header(session, context.hmac_key, f"Bearer {token}")


def test_the_database_does_not_hold_the_key(context: Context) -> None:
    with context.db.write() as session:
        key, token = create_key(session, context.hmac_key, project="p", name="n")
    assert token.startswith(key.hint.removesuffix("…"))
    assert len(key.hint) < len(token) / 2
    stored = b"".join(path.read_bytes() for path in context.settings.data.glob("burnish.db*"))
    assert token.encode() not in stored


def test_two_keys_share_a_project_by_its_name(context: Context) -> None:
    with context.db.write() as session:
        first, _ = create_key(session, context.hmac_key, project="p", name="a")
        second, _ = create_key(session, context.hmac_key, project="p", name="b")
        assert first.project_id == second.project_id
        assert [project.name for _, project in repository.list_keys(session)] == ["p", "p"]


def test_a_key_that_has_expired(context: Context) -> None:
    with context.db.write() as session:
        key, token = create_key(session, context.hmac_key, project="p", name="n", expires_in=60)
    with context.db.read() as session:
        assert authenticate_header(session, context.hmac_key, f"Bearer {token}").scopes == {"read", "write"}
    with context.db.write() as session:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key.id).values(expires_at=db_now() - 1))
    with context.db.read() as session, pytest.raises(Unauthenticated, match="has expired") as caught:
        authenticate_header(session, context.hmac_key, f"Bearer {token}")
    assert caught.value.code == "expired_api_key"
