"""The HTTP application, assembled: routers, errors, health, request ids. It imports no torch."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.middleware.cors import CORSMiddleware

from service.api.admission import Admission
from service.api.docs import add_docs
from service.api.errors import add_error_handlers
from service.api.full_disk import FullDisk, require_disk
from service.api.guards import take_turn
from service.api.headers import EXPOSED_HEADERS
from service.api.middleware import JsonBodyLimit, RequestId
from service.api.observed import Observed
from service.api.reference import TAGS, describe_api, operation_id
from service.api.shared import SharedResult
from service.api.tending import run_upkeep
from service.audit import endpoints as audit
from service.audit.refusals import RefusalLog
from service.audit.service import record_call
from service.chat import endpoints as chat
from service.context import Context
from service.erasure import endpoints as erasure
from service.exports import endpoints as exports
from service.files import endpoints as files
from service.files.service import storage_errors
from service.files.turns import open_upload_turns
from service.graders import endpoints as graders
from service.graders.turns import GradingTurns
from service.jobs import endpoints as jobs
from service.jobs import permission_endpoints as permissions
from service.jobs.stream import EventStreams
from service.keys import endpoints as keys
from service.keys.service import require_live
from service.kit.call import CALL
from service.kit.declared import declare_errors
from service.kit.errors import Unavailable
from service.kit.open_places import OpenPlaces
from service.kit.reserve import DiskReserve
from service.kit.version import VERSION
from service.limits import endpoints as limits
from service.limits.rates import RateBook
from service.models import endpoints as models
from service.previews import endpoints as previews
from service.uploads import endpoints as uploads
from service.webhooks import endpoints as webhooks
from service.webhooks.guard import guard_of

READINESS_SECONDS = 1.0
"""How long an answer about readiness holds: to find it out syncs a disk, and nobody needs a key to ask."""


class Health(BaseModel):
    """The process answers, or (readiness) everything it needs does."""

    status: Literal["ok"] = "ok"


def create_app(context: Context | None, *, reserve: DiskReserve | None = None) -> FastAPI:
    """Assemble the application. Without a context it can only describe itself (its OpenAPI document).

    `reserve` is the room for deleting on a full disk; none is kept without it.
    """
    app = FastAPI(
        title="Burnish",
        version=VERSION,
        summary="Post-training of language models as a service that you host yourself.",
        description="OpenAI's fine-tuning API, served by your own machines, and a superset of it.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # `docs` serves it
        openapi_tags=TAGS,
        redirect_slashes=False,  # a redirect would name a host and a scheme that a proxy in front may not have
        generate_unique_id_function=operation_id,
        dependencies=[Depends(take_turn, scope="function")],
        lifespan=run_upkeep,
    )
    open_shared_state(app, context, reserve)
    app.add_middleware(JsonBodyLimit)
    if context is not None:
        app.add_middleware(FullDisk, reserve=app.state.reserve)
    app.add_middleware(RequestId, trusted_proxies=context.settings.proxies if context else ())
    if context is not None and context.settings.origins:
        # Outside of what makes errors and request ids, so that a page can read those as well.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=context.settings.origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
            max_age=600,
        )
    app.add_middleware(Observed)
    add_error_handlers(app)
    routers = (
        files,
        uploads,
        previews,
        jobs,
        permissions,
        models,
        exports,
        chat,
        graders,
        webhooks,
        keys,
        erasure,
        limits,
        audit,
    )
    app.state.routes = [route for domain in routers for route in domain.router.routes]
    for router in (domain.router for domain in routers):
        app.include_router(router)
    add_docs(app)
    app.get("/healthz", name="check_health", tags=["Health"])(healthz)
    app.get(
        "/readyz",
        name="check_readiness",
        tags=["Health"],
        responses=declare_errors(Unavailable("A part does not answer.")),
    )(readyz)
    describe_api(app)
    return app


def open_shared_state(app: FastAPI, context: Context | None, reserve: DiskReserve | None) -> None:
    """Make what the requests to one process share: its books, its turns, its caches."""
    app.state.context = context
    app.state.rate_book = RateBook()
    app.state.grading = GradingTurns(context and context.settings)
    app.state.admission = Admission(context and context.settings)
    app.state.webhook_tests = webhooks.open_test_turns()
    app.state.webhook_guard = guard_of(context.settings) if context is not None else None
    app.state.refusals = app.state.reserve = None
    if context is None:
        return
    reserve = reserve or DiskReserve(context.settings.data, 0)
    app.state.upload_turns = open_upload_turns(context.settings)
    app.state.open_chats = OpenPlaces(
        "chats", per_project=context.settings.open_chats_per_project, total=context.settings.open_chats
    )
    app.state.event_streams = EventStreams(context)
    app.state.refusals, app.state.reserve = RefusalLog(context.db), reserve
    app.state.readiness = SharedResult(partial(check_parts, context), READINESS_SECONDS)
    context.db.before_commit = partial(watch_change, reserve)


def watch_change(reserve: DiskReserve, session: Session) -> None:
    """Before a transaction is committed: the caller's project must still be there, and the audit log its row.

    Raises Unauthenticated, or DiskIsFull if there is room for deleting alone.
    """
    call = CALL.get()
    if call is not None and call.key_id is not None and call.project_id is not None:
        require_disk(reserve, call)
        require_live(session, call.project_id)
        record_call(session, call)


def healthz() -> Health:
    """Answer as long as the process lives."""
    return Health()


async def readyz(request: Request) -> Health:
    """Answer 200 if SQL and the blob store answer."""
    readiness: SharedResult[None] = request.app.state.readiness
    await readiness.get()
    return Health()


def check_parts(context: Context) -> None:
    """Raise Unavailable or NoSpace unless SQL and the blob store answer."""
    context.db.check()
    with storage_errors():
        context.storage.check()


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of this version."""
    return create_app(None).openapi()
