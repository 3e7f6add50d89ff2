"""SQL of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from service.kit import ids
from service.kit.call import ApiCall
from service.kit.errors import InvalidRequest
from service.kit.pagination import fetch_page
from service.tables.audit import AuditRow, join_count
from service.tables.keys import ProjectRow

_MOST_ID, _MOST_OBJECT = 40, 320


@dataclass(frozen=True)
class AuditRowFilter:
    """What a list is narrowed to; an empty sequence narrows nothing. Times are unix seconds."""

    types: Sequence[str] = ()
    project_ids: Sequence[str] = ()
    key_ids: Sequence[str] = ()
    object_ids: Sequence[str] = ()
    after_time: float | None = None
    from_time: float | None = None
    before_time: float | None = None
    until_time: float | None = None

    def sql_conditions(self) -> list[ColumnElement[bool]]:
        """Return it as SQL."""
        among = (
            (AuditRow.type, self.types),
            (AuditRow.project_id, self.project_ids),
            (AuditRow.key_id, self.key_ids),
            (AuditRow.object_id, self.object_ids),
        )
        conditions: list[ColumnElement[bool]] = [column.in_(values) for column, values in among if values]
        # The wire's times are whole seconds, as it shows them; a row's has a fraction.
        if self.after_time is not None:
            conditions.append(AuditRow.at >= self.after_time + 1)
        if self.from_time is not None:
            conditions.append(AuditRow.at >= self.from_time)
        if self.before_time is not None:
            conditions.append(AuditRow.at < self.before_time)
        if self.until_time is not None:
            conditions.append(AuditRow.at < self.until_time + 1)
        return conditions


def add_audit_row(session: Session, **values: Any) -> None:
    """Append a row to the log, in the caller's transaction."""
    session.add(AuditRow(id=ids.new_id(ids.AUDIT), **values))
    session.flush()


def add_call(
    session: Session,
    call: ApiCall,
    *,
    type_: str,
    outcome: str,
    project_id: str | None,
    object_id: str | None,
    status: int | None = None,
    count: int = 1,
) -> None:
    """Append a call by an API key, or `count` of them of which it is the last."""
    add_audit_row(
        session,
        type=type_,
        outcome=outcome,
        status_code=status,
        actor="api_key",
        key_id=call.key_id,
        project_id=project_id and project_id[:_MOST_ID],
        object_id=object_id and object_id[:_MOST_OBJECT],
        request_id=join_count(count, call.request_id),
        address=call.address,
    )


def add_refusals(session: Session, last: ApiCall, *, type_: str, status: int, count: int) -> None:
    """Append `count` refused calls, the last of them in full.

    They are filed under the caller's own project: the path may name one that the key has no right to.
    """
    object_id = last.object_id or last_param(last)
    add_call(
        session,
        last,
        type_=type_,
        outcome="failed",
        project_id=last.project_id,
        object_id=object_id,
        status=status,
        count=count,
    )


def last_param(call: ApiCall) -> str | None:
    """Return what the path names last."""
    return next(reversed(list(call.params.values())), None)


def fetch_audit_page(
    session: Session, row_filter: AuditRowFilter, *, after: str | None, before: str | None, limit: int
) -> tuple[Sequence[AuditRow], bool]:
    """Return one page, newest first. `before` gives the page that ends just before an id.

    Raises InvalidRequest for an `after` or `before` that is not in the log.
    """
    query = select(AuditRow).where(*row_filter.sql_conditions())
    if before is None:
        return _fetch_newest_or_oldest(session, query, after, limit, newest_first=True)
    if after is not None:
        raise InvalidRequest("Give either after or before, not both.", param="before")
    try:
        rows, has_more = _fetch_newest_or_oldest(session, query, before, limit, newest_first=False)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, param="before") from error
    return rows[::-1], has_more


def _fetch_newest_or_oldest(
    session: Session, query: Any, place: str | None, limit: int, *, newest_first: bool
) -> tuple[Sequence[AuditRow], bool]:
    return fetch_page(
        session,
        query,
        scope=[],
        seq=AuditRow.seq,
        public_id=AuditRow.id,
        after=place,
        limit=limit,
        order="desc" if newest_first else "asc",
    )


def project_names(session: Session, project_ids: Sequence[str]) -> dict[str, str]:
    """Return the names of those projects that are still there."""
    rows = session.execute(
        select(ProjectRow.id, ProjectRow.name).where(ProjectRow.id.in_(project_ids), ProjectRow.deleted_at.is_(None))
    )
    return {row.id: row.name for row in rows}
