"""FastAPI's dependencies that every domain's endpoints share: who asks, and one transaction a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from fastapi.security import HTTPBearer
from sqlalchemy.orm import Session

from service.context import Context
from service.keys.idempotency import Idempotency
from service.keys.service import Principal, authenticate

_bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer YOUR_KEY`.")


def get_context(request: Request) -> Context:
    """Return what the process holds open."""
    context: Context = request.app.state.context
    return context


def get_principal(
    request: Request,
    context: Annotated[Context, Depends(get_context)],
    _documented: Annotated[object, Depends(_bearer)],
) -> Principal:
    """Return who asks. Raises Unauthenticated."""
    with context.db.read() as session:
        return authenticate(session, context.hmac_key, request.headers.get("authorization"))


def get_read_session(context: Annotated[Context, Depends(get_context)]) -> Iterator[Session]:
    """Open a session for reading, for the length of the request's function."""
    with context.db.read() as session:
        yield session


def get_write_session(context: Annotated[Context, Depends(get_context)]) -> Iterator[Session]:
    """Open the request's transaction; `scope="function"` below commits it BEFORE the answer is sent."""
    with context.db.write() as session:
        yield session


ContextDep = Annotated[Context, Depends(get_context)]
PrincipalDep = Annotated[Principal, Depends(get_principal)]
ReadSession = Annotated[Session, Depends(get_read_session, scope="function")]
WriteSession = Annotated[Session, Depends(get_write_session, scope="function")]


def get_idempotency(
    request: Request,
    response: Response,
    principal: PrincipalDep,
    idempotency_key: Annotated[
        str | None, Header(description="Sent again with the same key, a request creates nothing new for 24 hours.")
    ] = None,
) -> Idempotency:
    """Read the header. Raises InvalidRequest where it cannot be a key."""
    return Idempotency(principal.project_id, idempotency_key, request.url.path, response.headers)


IdempotencyDep = Annotated[Idempotency, Depends(get_idempotency)]
