from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from service.kit.db import Database
from service.kit.errors import NoSpace


def fill(database: Database) -> None:
    with database.write() as session:
        session.execute(text("PRAGMA max_page_count = 2"))
        session.execute(text("CREATE TABLE rows (content BLOB)"))
        session.execute(text("INSERT INTO rows VALUES (zeroblob(1000000))"))


def test_a_full_disk_is_reported_as_one(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'full.db'}")
    with pytest.raises(NoSpace, match="disk of the database is full"):
        fill(database)
    database.close()
