from __future__ import annotations

from pathlib import Path

from sqlalchemy import delete, select

from service.kit import outbox
from service.kit.db import Database
from service.kit.outbox import OutboxRow, Topic
from tests.fixtures.service import make_context


def add(database: Database) -> int:
    with database.write() as session:
        outbox.add_effect(session, Topic.DELETE_BLOBS, key="files/甲")
    with database.read() as session:
        return session.scalars(select(OutboxRow.seq).order_by(OutboxRow.seq.desc())).first() or 0


def test_a_number_is_never_given_again(tmp_path: Path) -> None:
    database = make_context(tmp_path).db
    first = add(database)
    with database.write() as session:
        session.execute(delete(OutboxRow))
    assert add(database) > first
    database.close()
