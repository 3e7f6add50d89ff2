"""The HTTP application, assembled: routers, errors, health, request ids. It imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from anyio import CapacityLimiter
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy.orm import Session

from service.api.docs import add_docs
from service.api.errors import add_error_handlers
from service.api.guards import READING, WRITING, refuse_nul, take_turn
from service.api.middleware import JsonBodyLimit, RequestId
from service.api.observed import Observed
from service.api.reference import TAGS, describe, operation_id
from service.audit import endpoints as audit
from service.audit.service import record
from service.chat import endpoints as chat
from service.context import Context
from service.erasure import endpoints as erasure
from service.exports import endpoints as exports
from service.files import endpoints as files
from service.files.service import storage_errors
from service.graders import endpoints as graders
from service.graders.turns import Turns
from service.jobs import endpoints as jobs
from service.jobs import permission_endpoints as permissions
from service.keys import endpoints as keys
from service.keys.auth import ContextDep
from service.keys.service import require_live
from service.kit.call import CALL
from service.kit.declared import refuses
from service.kit.errors import Unavailable
from service.kit.version import VERSION
from service.limits import endpoints as limits
from service.limits.rates import RateBook, count_request
from service.models import endpoints as models
from service.previews import endpoints as previews
from service.uploads import endpoints as uploads
from service.webhooks import endpoints as webhooks
from service.webhooks.guard import guard_of


class Health(BaseModel):
    """The process answers, or (readiness) everything it needs does."""

    status: Literal["ok"] = "ok"


def create_app(context: Context | None) -> FastAPI:
    """Assemble the application. Without a context it can only describe itself (its OpenAPI document)."""
    app = FastAPI(
        title="Burnish",
        version=VERSION,
        summary="Post-training of language models as a service that you host yourself.",
        description="OpenAI's fine-tuning API, served by your own machines, and a superset of it.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        openapi_tags=TAGS,
        redirect_slashes=False,  # a redirect would name a host and a scheme that a proxy in front may not have
        generate_unique_id_function=operation_id,
        dependencies=[Depends(refuse_nul), Depends(take_turn, scope="function")],
    )
    app.state.context = context
    app.state.rate_book = RateBook()
    app.state.grading = Turns()
    app.state.webhook_guard = guard_of(context.settings) if context is not None else None
    app.state.reading, app.state.writing = CapacityLimiter(READING), CapacityLimiter(WRITING)
    if context is not None:
        context.db.before_commit = watch_change
    app.add_middleware(JsonBodyLimit)
    app.add_middleware(RequestId)
    app.add_middleware(Observed)
    add_error_handlers(app)
    routed = (
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
    app.state.routes = [route for domain in routed for route in domain.router.routes]
    for router in (domain.router for domain in routed):
        app.include_router(router, dependencies=[Depends(count_request)])
    add_docs(app)
    app.get("/healthz", name="check_health", tags=["Health"])(healthz)
    app.get(
        "/readyz", name="check_readiness", tags=["Health"], responses=refuses(Unavailable("A part does not answer."))
    )(readyz)
    describe(app)
    return app


def watch_change(session: Session) -> None:
    """Look at a transaction before it is committed: the caller's project must still be there, and the log is told.

    Raises Unauthenticated.
    """
    call = CALL.get()
    if call is not None and call.key_id is not None and call.project_id is not None:
        require_live(session, call.project_id)
        record(session, call)


def healthz() -> Health:
    """Tell that the process lives."""
    return Health()


def readyz(context: ContextDep) -> Health:
    """Tell that SQL and the blob store answer."""
    context.db.check()
    with storage_errors():
        context.storage.check()
    return Health()


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of this version."""
    return create_app(None).openapi()
