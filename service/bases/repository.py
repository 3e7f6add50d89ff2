"""SQL of base models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.catalog import BaseModelEntry
from service.kit.db import db_now
from service.tables.base_models import BaseModelRow
from trainer.contract.base_model import BaseModelCard


def find_base_row(session: Session, base_id: str) -> BaseModelRow | None:
    """Return what is kept of a base, added or not."""
    query = select(BaseModelRow).where(BaseModelRow.id == base_id)
    return session.scalar(query.execution_options(populate_existing=True))


def fetch_entries(session: Session) -> list[BaseModelEntry]:
    """Return the bases that operators added, the oldest first."""
    query = select(BaseModelRow.entry).where(BaseModelRow.entry.is_not(None))
    rows: Sequence[object] = session.scalars(query.order_by(BaseModelRow.created_at, BaseModelRow.id)).all()
    return [BaseModelEntry.model_validate(entry) for entry in rows if entry is not None]


def store_findings(
    session: Session,
    entry: BaseModelEntry,
    *,
    files: Mapping[str, str] | None,
    card: BaseModelCard | None,
    problem: str | None,
    add: bool = False,
) -> None:
    """Keep what was found of a base; with `add`, the base itself as well."""
    row = find_base_row(session, entry.id)
    if row is None:
        row = BaseModelRow(id=entry.id, entry=None)
        session.add(row)
    if add:
        row.entry = entry.model_dump(mode="json")
    row.fingerprint = entry.fingerprint
    row.files = dict(files) if files is not None else None
    row.card = card.model_dump(mode="json") if card else None
    row.problem = problem
    row.checked_at = db_now()  # type: ignore[assignment]
    session.flush()


def store_problem(session: Session, base_id: str, problem: str | None) -> None:
    """Note what is wrong with a base now, or that nothing is any more; the rest stays."""
    row = find_base_row(session, base_id)
    if row is not None and row.problem != problem:
        row.problem = problem


def delete_base_row(session: Session, base_id: str) -> None:
    """Forget a base."""
    session.execute(delete(BaseModelRow).where(BaseModelRow.id == base_id))


def card_of(row: BaseModelRow | None, entry: BaseModelEntry) -> BaseModelCard | None:
    """Return a base's card, unless it is about another source of the same id."""
    if row is None or row.card is None or row.fingerprint != entry.fingerprint:
        return None
    return BaseModelCard.model_validate(row.card)
