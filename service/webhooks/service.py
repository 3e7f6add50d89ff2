"""The rules of webhook endpoints."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
from sqlalchemy.orm import Session

from service.keys.service import Principal
from service.kit import ids
from service.kit.errors import InvalidRequest
from service.tables.webhooks import WebhookEndpointRow, WebhookEventRow
from service.webhooks import health, repository
from service.webhooks.errors import EndpointDisabled, EndpointNotFound, EventNotFound, TooManyEndpoints
from service.webhooks.fan_out import send_to
from service.webhooks.guard import AddressRefused, Unresolvable, WebhookGuard
from service.webhooks.schedule import KEEP_OLD_SECRET
from service.webhooks.schemas import EndpointCreate, EndpointUpdate, Replay
from service.webhooks.target import BadAddress, check_address
from service.webhooks.vault import Vault, hint_of, new_secret

_MOST_ENDPOINTS = 100
_MOST_REPLAYED = 1000
_RESOLVE_SECONDS = 10.0


@dataclass(frozen=True)
class NewEndpoint:
    """An endpoint with its secret, which is shown only once."""

    endpoint: WebhookEndpointRow
    secret: str


async def refusal_of(guard: WebhookGuard, principal: Principal, url: str) -> InvalidRequest | None:
    """Return why a URL cannot be a receiver's, or why its host now leads to a forbidden address.

    Raises TurnsExhausted if too many lookups of the project wait.
    """
    try:
        check_address(url)
        async with asyncio.timeout(_RESOLVE_SECONDS):
            await guard.addresses_of(httpx.URL(url), principal.project_id)
    except BadAddress as error:
        sentence = f"The url {error}."
    except TimeoutError:
        sentence = (
            f"The host of the url could not be resolved within {_RESOLVE_SECONDS:g} s: check its name, or try again."
        )
    except Unresolvable as error:
        sentence = f"{error}. Check the url's host, or try again."
    except AddressRefused as error:
        sentence = f"{error}."
    else:
        return None
    return InvalidRequest(sentence, param="url")


def add_endpoint(session: Session, principal: Principal, vault: Vault, body: EndpointCreate) -> NewEndpoint:
    """Make an endpoint; its URL was checked. Raises Conflict if the project has the most that it may have."""
    if repository.count_endpoints(session, principal.project_id) >= _MOST_ENDPOINTS:
        raise TooManyEndpoints(_MOST_ENDPOINTS)
    endpoint_id, secret = ids.new_id(ids.WEBHOOK_ENDPOINT), new_secret()
    endpoint = WebhookEndpointRow(
        id=endpoint_id,
        project_id=principal.project_id,
        name=body.name,
        url=body.url,
        event_types=body.event_types,
        secret=vault.seal(secret, endpoint_id),
        secret_hint=hint_of(secret),
    )
    session.add(endpoint)
    session.flush()
    return NewEndpoint(endpoint, secret)


def find_endpoint(
    session: Session, principal: Principal, endpoint_id: str, *, lock: bool = False
) -> WebhookEndpointRow:
    """Return one of the project's endpoints. Raises EndpointNotFound."""
    endpoint = repository.by_id(session, endpoint_id, lock=lock)
    if endpoint is None or endpoint.project_id != principal.project_id:
        raise EndpointNotFound(endpoint_id)
    return endpoint


def change_endpoint(
    session: Session, principal: Principal, endpoint_id: str, body: EndpointUpdate
) -> WebhookEndpointRow:
    """Change what the body says and enable the endpoint. Raises EndpointNotFound."""
    new_values = body.model_dump(exclude_none=True)
    endpoint = find_endpoint(session, principal, endpoint_id, lock=True)
    changes = {name: value for name, value in new_values.items() if getattr(endpoint, name) != value}
    for name, value in changes.items():
        setattr(endpoint, name, value)
    if changes or endpoint.disabled_at is not None:
        endpoint.updated_at = repository.database_time(session)
    if endpoint.disabled_at is not None:
        health.enable_endpoint(endpoint)
    return endpoint


def remove_endpoint(session: Session, principal: Principal, endpoint_id: str) -> None:
    """Delete an endpoint with its log. Raises EndpointNotFound."""
    repository.delete_endpoint_row(session, find_endpoint(session, principal, endpoint_id, lock=True))


def rotate_secret(
    session: Session, principal: Principal, vault: Vault, endpoint_id: str, *, keep_old: bool
) -> NewEndpoint:
    """Give an endpoint a new secret; with `keep_old`, the old one signs too for a day. Raises EndpointNotFound."""
    endpoint = find_endpoint(session, principal, endpoint_id, lock=True)
    now, secret = repository.database_time(session), new_secret()
    endpoint.old_secret = endpoint.secret if keep_old else None
    endpoint.old_secret_until = now + KEEP_OLD_SECRET if keep_old else None
    endpoint.secret, endpoint.secret_hint, endpoint.updated_at = vault.seal(secret, endpoint_id), hint_of(secret), now
    return NewEndpoint(endpoint, secret)


def replay_events(session: Session, principal: Principal, endpoint_id: str, body: Replay) -> list[str]:
    """Deliver events again, with their ids; what is still to be delivered is delivered now. Return the events' ids.

    Raises EndpointNotFound, EventNotFound, Conflict for a disabled endpoint, InvalidRequest for too many.
    """
    endpoint = find_endpoint(session, principal, endpoint_id, lock=True)
    if endpoint.disabled_at is not None:
        raise EndpointDisabled(endpoint_id)
    events = _choose_events(session, endpoint, body)
    waiting = {row.payload["event_id"]: row.seq for row in repository.pending_deliveries(session, endpoint.id)}
    for event in events:
        if event.id in waiting:
            repository.make_due(session, waiting[event.id])
        else:
            send_to(session, endpoint.id, event.id)
    return [event.id for event in events]


def _choose_events(session: Session, endpoint: WebhookEndpointRow, body: Replay) -> list[WebhookEventRow]:
    if body.event_ids is not None:
        event_by_id = {
            event.id: event for event in repository.events_named(session, endpoint.project_id, body.event_ids)
        }
        for event_id in body.event_ids:
            if event_id not in event_by_id:
                raise EventNotFound(event_id)
        return list(event_by_id.values())
    assert body.begin is not None
    assert body.end is not None
    events = repository.events_between(
        session, endpoint.project_id, body.begin, body.end, types=endpoint.event_types, limit=_MOST_REPLAYED + 1
    )
    if len(events) > _MOST_REPLAYED:
        raise InvalidRequest(
            f"There are more than {_MOST_REPLAYED} events from {body.begin:g} to {body.end:g}: ask for a shorter span.",
            param="to",
        )
    return list(events)
