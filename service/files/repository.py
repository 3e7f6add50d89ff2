"""SQL of files, and of the contents that several files share."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from service.kit.db import db_now
from service.kit.pagination import Order, Scope, fetch_page
from service.tables.files import FileContentRow, FileRow


def get_project_file(session: Session, project_id: str, file_id: str) -> FileRow | None:
    """Return a project's file."""
    return session.scalar(select(FileRow).where(FileRow.id == file_id, FileRow.project_id == project_id))


def fetch_file_page(
    session: Session, project_id: str, *, purpose: str | None, after: str | None, limit: int, order: Order
) -> tuple[Sequence[FileRow], bool]:
    """Return one page of a project's files."""
    scope: Scope = [(FileRow.project_id, project_id)]
    if purpose is not None:
        scope.append((FileRow.purpose, purpose))
    return fetch_page(
        session,
        select(FileRow),
        scope=scope,
        seq=FileRow.seq,
        public_id=FileRow.id,
        after=after,
        limit=limit,
        order=order,
    )


def delete_file_row(session: Session, file: FileRow) -> bool:
    """Delete a file's row; False if somebody else has."""
    return session.scalar(delete(FileRow).where(FileRow.seq == file.seq).returning(FileRow.seq)) is not None


def share_content(session: Session, file: FileRow) -> str:
    """Count a file with these bytes in and return where its project has them: under the file's key if it is the first.

    The row is locked until the transaction ends, so that a deletion of the last other file waits, or has happened.
    """
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    statement = (
        insert(FileContentRow)
        .values(blob_key=file.blob_key, project_id=file.project_id, sha256=file.sha256, files=1)
        # One statement, because two uploads of the same bytes may insert at the same moment.
        .on_conflict_do_update(index_elements=["project_id", "sha256"], set_={"files": FileContentRow.files + 1})
    )
    return session.scalars(statement.returning(FileContentRow.blob_key)).one()


def release_content(session: Session, blob_key: str) -> bool:
    """Count one file less and return whether no file has these bytes any more."""
    query = update(FileContentRow).where(FileContentRow.blob_key == blob_key).values(files=FileContentRow.files - 1)
    remaining_files = session.scalar(query.returning(FileContentRow.files))
    # The row goes in the same transaction as the last file, so that a later upload stores its bytes anew.
    if remaining_files == 0:
        session.execute(delete(FileContentRow).where(FileContentRow.blob_key == blob_key))
    return not remaining_files


def fetch_expired_files(session: Session, *, limit: int = 100) -> Sequence[FileRow]:
    """Return some files that are past their `expires_after`."""
    return session.scalars(select(FileRow).where(FileRow.expires_at <= db_now()).limit(limit)).all()
