"""Lists: newest first or oldest first, from a given object on, one row more than asked to know `has_more`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.kit.errors import InvalidRequest

T = TypeVar("T")
Order = Literal["asc", "desc"]


class ListPage(BaseModel, Generic[T]):
    """OpenAI's list object."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool


class BoundedListPage(ListPage[T], Generic[T]):
    """The same with the ids of its ends, as files and checkpoints have it."""

    first_id: str | None
    last_id: str | None

    @classmethod
    def of(cls, data: list[T], has_more: bool) -> Self:
        """Make a page of objects that have ids."""
        first, last = (data[0], data[-1]) if data else (None, None)
        return cls(data=data, has_more=has_more, first_id=getattr(first, "id", None), last_id=getattr(last, "id", None))


def fetch_page(
    session: Session,
    query: Select[T],
    *,
    seq: InstrumentedAttribute[int],
    public_id: InstrumentedAttribute[str],
    after: str | None,
    limit: int,
    order: Order,
) -> tuple[Sequence[T], bool]:
    """Return one page of `query` and whether more follow. It costs the same at every depth: a seek, no offset.

    Raises InvalidRequest where `after` is not the id of an object in the list.
    """
    if after is not None:
        narrowed: Select[Any] = query.with_only_columns(seq).where(public_id == after).order_by(None)
        position = session.scalar(narrowed)
        if position is None:
            raise InvalidRequest(f"No object in this list has the id '{after[:64]}'.", param="after")
        query = query.where(seq > position if order == "asc" else seq < position)
    query = query.order_by(seq.asc() if order == "asc" else seq.desc()).limit(limit + 1)
    rows = session.scalars(query).all()
    return rows[:limit], len(rows) > limit
