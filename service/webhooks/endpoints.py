"""Routes of webhook endpoints."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request

from service.context import Context
from service.keys.auth import ContextDep, IdempotencyDep, PrincipalDep, ReadSession, WriteSession
from service.keys.idempotency import Idempotency
from service.keys.service import Principal
from service.kit import ids
from service.kit.declared import declare_errors
from service.kit.errors import InvalidRequest
from service.kit.fair_turns import FairTurns, TurnsExhausted
from service.kit.pagination import BoundedListPage, ListPage, Order
from service.kit.routes import CheckedRoute
from service.webhooks import repository, service
from service.webhooks.errors import EndpointDisabled, EndpointNotFound, EventNotFound, NoAnswer, TooManyEndpoints
from service.webhooks.guard import WebhookGuard, make_guarded_client
from service.webhooks.lanes import DeliveryPace
from service.webhooks.message import EVENT_TYPES, body_of
from service.webhooks.post import DeliveryOutcome, post_event
from service.webhooks.schemas import (
    DeliveryObject,
    EndpointCreate,
    EndpointDeleted,
    EndpointObject,
    EndpointTest,
    EndpointTested,
    EndpointUpdate,
    EndpointWithSecret,
    EventTypeList,
    Replay,
    Replayed,
    SecretRotate,
)
from service.webhooks.target import DeliveryTarget, target_of
from service.webhooks.vault import Vault

router = APIRouter(prefix="/v1", tags=["Webhooks"], route_class=CheckedRoute)
_UNKNOWN = EndpointNotFound("whe_abc123")
_SAMPLE_JOB = ids.JOB + "sample"


def _get_guard(request: Request) -> WebhookGuard:
    guard: WebhookGuard = request.app.state.webhook_guard
    return guard


GuardDep = Annotated[WebhookGuard, Depends(_get_guard)]


def open_test_turns() -> FairTurns:
    """Return the places for deliveries that a caller waits for: a receiver may take as long as a delivery may."""
    return FairTurns(16, noun="tests of webhook endpoints", per_project=4, waiting_per_project=8, retry_after=15)


def _test_turns(request: Request) -> FairTurns:
    turns: FairTurns = request.app.state.webhook_tests
    return turns


@router.get("/webhook_event_types")
def list_webhook_event_types(_principal: PrincipalDep) -> EventTypeList:
    """List the events that endpoints can subscribe to."""
    return EventTypeList(data=list(EVENT_TYPES))


@router.post("/webhook_endpoints", responses=declare_errors(TooManyEndpoints(100)))
async def create_webhook_endpoint(
    body: EndpointCreate, context: ContextDep, guard: GuardDep, principal: PrincipalDep, idempotency: IdempotencyDep
) -> EndpointWithSecret:
    """Create an endpoint. The answer alone shows its signing secret."""
    refusal = await service.refusal_of(guard, principal, body.url)
    return await to_thread.run_sync(_create_endpoint, context, principal, idempotency, body, refusal)


@router.get("/webhook_endpoints")
def list_webhook_endpoints(
    session: ReadSession,
    principal: PrincipalDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = "desc",
) -> BoundedListPage[EndpointObject]:
    """List endpoints, newest first."""
    rows, has_more = repository.fetch_endpoint_page(
        session, principal.project_id, after=after, limit=limit, order=order
    )
    data = [EndpointObject.from_row(row) for row in rows]
    first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
    return BoundedListPage(data=data, has_more=has_more, first_id=first_id, last_id=last_id)


@router.get("/webhook_endpoints/{webhook_endpoint_id}", responses=declare_errors(_UNKNOWN))
def get_webhook_endpoint(webhook_endpoint_id: str, session: ReadSession, principal: PrincipalDep) -> EndpointObject:
    """Return an endpoint without its secret."""
    return EndpointObject.from_row(service.find_endpoint(session, principal, webhook_endpoint_id))


@router.post("/webhook_endpoints/{webhook_endpoint_id}", responses=declare_errors(_UNKNOWN))
async def update_webhook_endpoint(
    webhook_endpoint_id: str, body: EndpointUpdate, context: ContextDep, guard: GuardDep, principal: PrincipalDep
) -> EndpointObject:
    """Change an endpoint, and enable it if it was disabled."""
    refusal = None if body.url is None else await service.refusal_of(guard, principal, body.url)
    if refusal is not None:
        raise refusal

    def change_endpoint() -> EndpointObject:
        with context.db.write() as session:
            return EndpointObject.from_row(service.change_endpoint(session, principal, webhook_endpoint_id, body))

    return await to_thread.run_sync(change_endpoint)


@router.delete("/webhook_endpoints/{webhook_endpoint_id}", responses=declare_errors(_UNKNOWN))
def delete_webhook_endpoint(
    webhook_endpoint_id: str, session: WriteSession, principal: PrincipalDep
) -> EndpointDeleted:
    """Delete an endpoint with the log of its deliveries; what was still to be delivered is dropped."""
    service.remove_endpoint(session, principal, webhook_endpoint_id)
    return EndpointDeleted(id=webhook_endpoint_id)


@router.post("/webhook_endpoints/{webhook_endpoint_id}/rotate_secret", responses=declare_errors(_UNKNOWN))
def rotate_webhook_secret(
    webhook_endpoint_id: str,
    session: WriteSession,
    context: ContextDep,
    principal: PrincipalDep,
    idempotency: IdempotencyDep,
    body: SecretRotate | None = None,
) -> EndpointWithSecret:
    """Give an endpoint a new signing secret, which the answer alone shows."""
    keep_old = body is not None and body.keep_old_secret_active_for_24_hours

    def make_secret() -> EndpointWithSecret:
        secret = service.rotate_secret(
            session, principal, Vault(context.hmac_key), webhook_endpoint_id, keep_old=keep_old
        )
        return EndpointWithSecret.from_row_and_secret(secret.endpoint, secret.secret)

    return idempotency.run_once(session, {"keep_old": keep_old}, EndpointWithSecret, make_secret)


@router.post(
    "/webhook_endpoints/{webhook_endpoint_id}/test",
    responses=declare_errors(
        _UNKNOWN,
        NoAnswer("https://example.com/hooks/burnish", "connection refused"),
        TurnsExhausted("tests of webhook endpoints", 8, retry_after=15),
    ),
)
async def test_webhook_endpoint(
    webhook_endpoint_id: str,
    body: EndpointTest,
    context: ContextDep,
    guard: GuardDep,
    principal: PrincipalDep,
    turns: Annotated[FairTurns, Depends(_test_turns)],
) -> EndpointTested:
    """Post a sample event to an endpoint now, once, even to one that is disabled."""
    target, now = await to_thread.run_sync(_find_target, context, principal, webhook_endpoint_id)
    event_id = ids.new_id(ids.WEBHOOK_EVENT)
    sample = body_of(event_id, body.event_type, int(now), _SAMPLE_JOB)
    timeout = DeliveryPace().timeout
    async with turns.hold_turn(principal.project_id), make_guarded_client(guard, timeout) as client:
        outcome = await post_event(client, target, event_id, sample, timeout=timeout)
    await to_thread.run_sync(partial(_log_test, context, target, event_id, body.event_type, outcome))
    if outcome.status_code is None:
        raise NoAnswer(target.url, outcome.error or "")
    return EndpointTested(
        webhook_endpoint_id=webhook_endpoint_id, event_type=body.event_type, status_code=outcome.status_code
    )


@router.get("/webhook_endpoints/{webhook_endpoint_id}/deliveries", responses=declare_errors(_UNKNOWN))
def list_webhook_deliveries(
    webhook_endpoint_id: str,
    session: ReadSession,
    principal: PrincipalDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    order: Order = "desc",
) -> ListPage[DeliveryObject]:
    """List every try to deliver an event to an endpoint, newest first."""
    endpoint = service.find_endpoint(session, principal, webhook_endpoint_id)
    rows, has_more = repository.page_of_attempts(session, endpoint.id, after=after, limit=limit, order=order)
    return ListPage(data=[DeliveryObject.from_attempt(endpoint.id, row) for row in rows], has_more=has_more)


@router.post(
    "/webhook_endpoints/{webhook_endpoint_id}/replay",
    responses=declare_errors(_UNKNOWN, EventNotFound("evt_abc123"), EndpointDisabled("whe_abc123")),
)
def replay_webhook_events(
    webhook_endpoint_id: str,
    body: Replay,
    session: WriteSession,
    principal: PrincipalDep,
    idempotency: IdempotencyDep,
) -> Replayed:
    """Deliver events again: those with the ids, or those of the endpoint's types that happened in a span."""

    def replay_once() -> Replayed:
        event_ids = service.replay_events(session, principal, webhook_endpoint_id, body)
        return Replayed(webhook_endpoint_id=webhook_endpoint_id, event_ids=event_ids)

    return idempotency.run_once(session, body.model_dump(), Replayed, replay_once)


def _create_endpoint(
    context: Context,
    principal: Principal,
    idempotency: Idempotency,
    body: EndpointCreate,
    refusal: InvalidRequest | None,
) -> EndpointWithSecret:
    """Create an endpoint, or give the earlier answer, though the host of the URL leads elsewhere by now."""

    def make_endpoint() -> EndpointWithSecret:
        if refusal is not None:
            raise refusal
        endpoint = service.add_endpoint(session, principal, Vault(context.hmac_key), body)
        return EndpointWithSecret.from_row_and_secret(endpoint.endpoint, endpoint.secret)

    with context.db.write() as session:
        return idempotency.run_once(session, body.model_dump(), EndpointWithSecret, make_endpoint)


def _find_target(context: Context, principal: Principal, endpoint_id: str) -> tuple[DeliveryTarget, float]:
    with context.db.read() as session:
        endpoint, now = service.find_endpoint(session, principal, endpoint_id), repository.database_time(session)
        return target_of(endpoint, Vault(context.hmac_key), now), now


def _log_test(
    context: Context, target: DeliveryTarget, event_id: str, event_type: str, outcome: DeliveryOutcome
) -> None:
    with context.db.write() as session:
        if repository.by_id(session, target.endpoint_id or "") is not None:
            repository.add_attempt(session, target, event_id, event_type, outcome)
