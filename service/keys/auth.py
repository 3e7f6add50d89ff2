"""FastAPI's dependencies that every domain's endpoints share: the caller, and one transaction a request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from fastapi.security import HTTPBearer
from sqlalchemy.orm import Session

from service.context import Context
from service.keys import repository
from service.keys.idempotency import Idempotency
from service.keys.service import Principal, authenticate_header
from service.kit.call import CALL
from service.kit.errors import Unavailable

_bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer YOUR_KEY`.")


async def get_context(request: Request) -> Context:
    """Return what the process holds open."""
    context: Context = request.app.state.context
    return context


async def get_read_session(context: Annotated[Context, Depends(get_context)]) -> AsyncIterator[Session]:
    """Open a session for reading, for the length of the request's function.

    It is asynchronous because it never waits: a turn among the threads costs more than it does.
    """
    with context.db.read() as session:
        yield session


ReadSession = Annotated[Session, Depends(get_read_session, scope="function")]


def find_principal(request: Request, context: Context) -> Principal:
    """Look a request's key up: call it from a thread. Raises Unauthenticated.

    The connection returns to the pool here: a request that held one while it waits for its next turn among the threads
    could wait for threads that all wait for a connection.
    """
    with context.db.read() as session:
        principal = authenticate_header(session, context.hmac_key, request.headers.get("authorization"))
    if not principal.use_noted:
        # A database that takes no writes, because its disk is full, is still there for reading.
        with suppress(Unavailable), context.db.write() as writing:
            repository.note_use(writing, principal.key_id)
    call = CALL.get()
    if call is not None:
        call.key_id, call.project_id = principal.key_id, principal.project_id
        # For the audit log: its entries are written without the request at hand.
        call.route, call.params = request.scope["route"].path, request.path_params
    return principal


async def get_principal(request: Request, _documented: Annotated[object, Depends(_bearer)]) -> Principal:
    """Return the caller, as the request's admission found it before its body was read."""
    principal: Principal = request.state.principal
    return principal


async def get_admin(principal: Annotated[Principal, Depends(get_principal)]) -> Principal:
    """Return the caller; the admission of a route that depends on this lets in admins alone."""
    principal.require_scope("admin")
    return principal


def get_write_session(
    context: Annotated[Context, Depends(get_context)], _principal: Annotated[Principal, Depends(get_principal)]
) -> Iterator[Session]:
    """Open the request's transaction; `scope="function"` below commits it BEFORE the answer is sent.

    It comes after the key's check, which may write too: SQLite has one writer.
    """
    with context.db.write() as session:
        yield session


ContextDep = Annotated[Context, Depends(get_context)]
PrincipalDep = Annotated[Principal, Depends(get_principal)]
AdminDep = Annotated[Principal, Depends(get_admin)]
WriteSession = Annotated[Session, Depends(get_write_session, scope="function")]


async def get_idempotency(
    request: Request,
    response: Response,
    context: ContextDep,
    principal: PrincipalDep,
    idempotency_key: Annotated[
        str | None, Header(description="Sent again with the same key, a request creates nothing new for 24 hours.")
    ] = None,
) -> Idempotency:
    """Read the header. Raises InvalidRequest if it cannot be a key."""

    def mark_replayed(object_id: str | None) -> None:
        response.headers["Idempotent-Replayed"] = "true"
        call = CALL.get()
        if call is not None:
            call.replayed, call.object_id = True, object_id

    return Idempotency(principal.project_id, idempotency_key, request.url.path, context.hmac_key, mark_replayed)


IdempotencyDep = Annotated[Idempotency, Depends(get_idempotency)]
