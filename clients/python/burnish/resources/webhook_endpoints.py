"""`/v1/webhook_endpoints`: the receivers of a project, and what became of their deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from burnish._pages import AsyncPage, Page
from burnish._request import Request, idempotency_headers, parser_of, path_segment, query_params
from burnish._transport import AsyncTransport, Transport
from burnish.schemas import Deleted, PageData, WebhookDelivery, WebhookEndpoint, WebhookReplay, WebhookTest

_PATH = "/webhook_endpoints"
_TEST_SECONDS = 60.0
"""How long the answer to a test may take: the server waits for the receiver."""
Moment = float | datetime


def _create_endpoint_request(name: str, url: str, event_types: Sequence[str]) -> Request[WebhookEndpoint]:
    body = {"name": name, "url": url, "event_types": list(event_types)}
    return Request("POST", _PATH, parser_of(WebhookEndpoint), headers=idempotency_headers(None), json=body)


def _list_endpoints_request(
    after: str | None, limit: int | None, order: str | None
) -> Request[PageData[WebhookEndpoint]]:
    params = query_params(after=after, limit=limit, order=order)
    return Request("GET", _PATH, parser_of(PageData[WebhookEndpoint]), params=params)


def _retrieve_endpoint_request(endpoint_id: str) -> Request[WebhookEndpoint]:
    return Request("GET", f"{_PATH}/{path_segment(endpoint_id)}", parser_of(WebhookEndpoint))


def _update_endpoint_request(
    endpoint_id: str, name: str | None, url: str | None, event_types: Sequence[str] | None
) -> Request[WebhookEndpoint]:
    changes = {"name": name, "url": url, "event_types": None if event_types is None else list(event_types)}
    body = {key: value for key, value in changes.items() if value is not None}
    return Request("POST", f"{_PATH}/{path_segment(endpoint_id)}", parser_of(WebhookEndpoint), json=body)


def _delete_endpoint_request(endpoint_id: str) -> Request[Deleted]:
    return Request("DELETE", f"{_PATH}/{path_segment(endpoint_id)}", parser_of(Deleted))


def _rotate_secret_request(endpoint_id: str, keep_old: bool) -> Request[WebhookEndpoint]:
    body = {"keep_old_secret_active_for_24_hours": keep_old}
    return Request(
        "POST",
        f"{_PATH}/{path_segment(endpoint_id)}/rotate_secret",
        parser_of(WebhookEndpoint),
        headers=idempotency_headers(None),
        json=body,
    )


def _test_endpoint_request(endpoint_id: str, event_type: str) -> Request[WebhookTest]:
    path = f"{_PATH}/{path_segment(endpoint_id)}/test"
    body = {"event_type": event_type}
    return Request("POST", path, parser_of(WebhookTest), json=body, read_timeout=_TEST_SECONDS)


def _list_deliveries_request(
    endpoint_id: str, after: str | None, limit: int | None, order: str | None
) -> Request[PageData[WebhookDelivery]]:
    params = query_params(after=after, limit=limit, order=order)
    path = f"{_PATH}/{path_segment(endpoint_id)}/deliveries"
    return Request("GET", path, parser_of(PageData[WebhookDelivery]), params=params)


def _replay_events_request(
    endpoint_id: str, event_ids: Sequence[str] | None, begin: Moment | None, end: Moment | None
) -> Request[WebhookReplay]:
    arguments = {
        "event_ids": None if event_ids is None else list(event_ids),
        "from": _unix_seconds(begin),
        "to": _unix_seconds(end),
    }
    body = {key: value for key, value in arguments.items() if value is not None}
    return Request(
        "POST",
        f"{_PATH}/{path_segment(endpoint_id)}/replay",
        parser_of(WebhookReplay),
        headers=idempotency_headers(None),
        json=body,
    )


def _unix_seconds(moment: Moment | None) -> float | None:
    return moment.timestamp() if isinstance(moment, datetime) else moment


class WebhookEndpoints:
    """`client.webhooks.endpoints`: receivers of the project's events."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def create(self, *, name: str, url: str, event_types: Sequence[str]) -> WebhookEndpoint:
        """Create an endpoint; `signing_secret` of the answer is never shown again.

        Raises BadRequestError for a URL that webhooks must not go to.
        """
        return self._client.send(_create_endpoint_request(name, url, event_types))

    def list(
        self, *, after: str | None = None, limit: int | None = None, order: str | None = None
    ) -> Page[WebhookEndpoint]:
        """List endpoints, newest first; `limit` is a page's size, iterating goes through all pages."""
        return Page(self._client, _list_endpoints_request(after, limit, order))

    def retrieve(self, endpoint_id: str) -> WebhookEndpoint:
        """Return one endpoint. Raises NotFoundError."""
        return self._client.send(_retrieve_endpoint_request(endpoint_id))

    def update(
        self,
        endpoint_id: str,
        *,
        name: str | None = None,
        url: str | None = None,
        event_types: Sequence[str] | None = None,
    ) -> WebhookEndpoint:
        """Change what is given, and enable the endpoint if it was disabled. Raises NotFoundError."""
        return self._client.send(_update_endpoint_request(endpoint_id, name, url, event_types))

    def delete(self, endpoint_id: str) -> Deleted:
        """Delete an endpoint with the log of its deliveries. Raises NotFoundError."""
        return self._client.send(_delete_endpoint_request(endpoint_id))

    def rotate_secret(self, endpoint_id: str, *, keep_old_secret_active_for_24_hours: bool = False) -> WebhookEndpoint:
        """Make a new signing secret, which the answer alone shows. Raises NotFoundError."""
        return self._client.send(_rotate_secret_request(endpoint_id, keep_old_secret_active_for_24_hours))

    def test(self, endpoint_id: str, *, event_type: str) -> WebhookTest:
        """Let the server post a sample event now. Raises BadRequestError if the receiver does not answer."""
        return self._client.send(_test_endpoint_request(endpoint_id, event_type))

    def deliveries(
        self, endpoint_id: str, *, after: str | None = None, limit: int | None = None, order: str | None = None
    ) -> Page[WebhookDelivery]:
        """List every try to deliver an event, newest first. Raises NotFoundError."""
        return Page(self._client, _list_deliveries_request(endpoint_id, after, limit, order))

    def replay(
        self,
        endpoint_id: str,
        *,
        event_ids: Sequence[str] | None = None,
        begin: Moment | None = None,
        end: Moment | None = None,
    ) -> WebhookReplay:
        """Deliver events again: those with the ids, or those from `begin` to before `end`.

        Times are unix seconds or aware datetimes. Raises ConflictError for a disabled endpoint, NotFoundError.
        """
        return self._client.send(_replay_events_request(endpoint_id, event_ids, begin, end))


class AsyncWebhookEndpoints:
    """`client.webhooks.endpoints`, awaited; see `WebhookEndpoints` for each method."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def create(self, *, name: str, url: str, event_types: Sequence[str]) -> WebhookEndpoint:
        """Create an endpoint; its secret is shown only now."""
        return await self._client.send(_create_endpoint_request(name, url, event_types))

    async def list(
        self, *, after: str | None = None, limit: int | None = None, order: str | None = None
    ) -> AsyncPage[WebhookEndpoint]:
        """List the project's endpoints, page by page."""
        return await AsyncPage[WebhookEndpoint].fetch(self._client, _list_endpoints_request(after, limit, order))

    async def retrieve(self, endpoint_id: str) -> WebhookEndpoint:
        """Return an endpoint without its secret."""
        return await self._client.send(_retrieve_endpoint_request(endpoint_id))

    async def update(
        self,
        endpoint_id: str,
        *,
        name: str | None = None,
        url: str | None = None,
        event_types: Sequence[str] | None = None,
    ) -> WebhookEndpoint:
        """Change what is given, and enable the endpoint if it was disabled."""
        return await self._client.send(_update_endpoint_request(endpoint_id, name, url, event_types))

    async def delete(self, endpoint_id: str) -> Deleted:
        """Delete an endpoint with the log of its deliveries."""
        return await self._client.send(_delete_endpoint_request(endpoint_id))

    async def rotate_secret(
        self, endpoint_id: str, *, keep_old_secret_active_for_24_hours: bool = False
    ) -> WebhookEndpoint:
        """Make a new signing secret."""
        return await self._client.send(_rotate_secret_request(endpoint_id, keep_old_secret_active_for_24_hours))

    async def test(self, endpoint_id: str, *, event_type: str) -> WebhookTest:
        """Let the server post a sample event now."""
        return await self._client.send(_test_endpoint_request(endpoint_id, event_type))

    async def deliveries(
        self, endpoint_id: str, *, after: str | None = None, limit: int | None = None, order: str | None = None
    ) -> AsyncPage[WebhookDelivery]:
        """List every try to deliver an event."""
        return await AsyncPage[WebhookDelivery].fetch(
            self._client, _list_deliveries_request(endpoint_id, after, limit, order)
        )

    async def replay(
        self,
        endpoint_id: str,
        *,
        event_ids: Sequence[str] | None = None,
        begin: Moment | None = None,
        end: Moment | None = None,
    ) -> WebhookReplay:
        """Deliver events again to one endpoint."""
        return await self._client.send(_replay_events_request(endpoint_id, event_ids, begin, end))
