"""Lists: newest first or oldest first, from a given object on, one row more than asked to know `has_more`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.kit.errors import InvalidRequest
from service.kit.members import LEFT_OUT_IF_NULL

T = TypeVar("T")
Order = Literal["asc", "desc"]
Scope = list[tuple[InstrumentedAttribute[Any], str]]
"""Whose objects a list has: columns and the values that they must have."""


class ListPage(BaseModel, Generic[T]):
    """One page of a list, in OpenAI's form."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool


class BoundedListPage(ListPage[T], Generic[T]):
    """The same with the ids of its ends, as files and checkpoints have it."""

    first_id: Annotated[str | None, LEFT_OUT_IF_NULL] = None
    last_id: Annotated[str | None, LEFT_OUT_IF_NULL] = None

    @classmethod
    def from_items(cls, data: list[T], has_more: bool) -> Self:
        """Make a page of objects that have ids."""
        first, last = (data[0], data[-1]) if data else (None, None)
        return cls(data=data, has_more=has_more, first_id=getattr(first, "id", None), last_id=getattr(last, "id", None))


def fetch_page(
    session: Session,
    query: Select[T],
    *,
    scope: Scope,
    seq: InstrumentedAttribute[int],
    public_id: InstrumentedAttribute[str],
    after: str | None,
    limit: int,
    order: Order,
) -> tuple[Sequence[T], bool]:
    """Return one page of those rows of `query` that have the values of `scope`, and whether more follow.

    With an index on the scope's columns and `seq` it costs the same at every depth: a seek, no offset. Raises
    InvalidRequest where `after` is not the id of an object in the list.
    """
    position = None
    if after is not None:
        scope_conditions = [column == value for column, value in scope]
        position_query: Select[Any] = (
            query.with_only_columns(seq).where(public_id == after, *scope_conditions).order_by(None)
        )
        position = session.scalar(position_query)
        if position is None:
            raise InvalidRequest(f"No object in this list has the id '{after[:64]}'.", param="after")
    columns = [*(column for column, _ in scope), seq]
    sort_columns = [column.asc() if order == "asc" else column.desc() for column in columns]
    bounds = _list_conditions if session.get_bind().dialect.name == "sqlite" else _index_bounds
    page = query.where(*bounds(scope, seq, position, order)).order_by(*sort_columns).limit(limit + 1)
    rows = session.scalars(page).all()
    return rows[:limit], len(rows) > limit


def _list_conditions(
    scope: Scope, seq: InstrumentedAttribute[int], position: int | None, order: Order
) -> list[ColumnElement[bool]]:
    """Return what a list's rows have, and where it begins.

    It is what SQLite makes one seek of: of bounds by rows of values it would use the first column alone.
    """
    conditions: list[ColumnElement[bool]] = [column == value for column, value in scope]
    if position is not None:
        conditions.append(seq > position if order == "asc" else seq < position)
    return conditions


def _index_bounds(
    scope: Scope, seq: InstrumentedAttribute[int], position: int | None, order: Order
) -> list[ColumnElement[bool]]:
    """Return where the list begins and ends, as bounds of the index instead of as equalities.

    Told `project_id = …`, PostgreSQL may walk the primary key backwards through all other projects' rows, trusting
    that one in a few will fit; given a range, only the right index can supply the order.
    """
    columns, values = [column for column, _ in scope], [value for _, value in scope]
    bounds: list[ColumnElement[bool]] = []
    if scope and (position is None or order == "desc"):
        bounds.append(tuple_(*columns) >= tuple_(*values))
    if scope and (position is None or order == "asc"):
        bounds.append(tuple_(*columns) <= tuple_(*values))
    if position is not None:
        here, there = tuple_(*columns, seq), tuple_(*values, position)
        bounds.append(here > there if order == "asc" else here < there)
    return bounds
