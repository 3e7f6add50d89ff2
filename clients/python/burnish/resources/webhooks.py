"""Webhooks: which receivers get which events, and whether what arrives at your receiver is from your server."""

from __future__ import annotations

from collections.abc import Mapping

from burnish._request import Request, parser_of
from burnish._transport import AsyncTransport, Transport
from burnish.errors import WebhookVerificationError
from burnish.resources.webhook_endpoints import AsyncWebhookEndpoints, WebhookEndpoints
from burnish.schemas import WebhookEvent, WebhookEventTypes

_EVENT_TYPES = Request("GET", "/webhook_event_types", parser_of(WebhookEventTypes))


class _Unwrapping:
    def unwrap(self, body: bytes | str, headers: Mapping[str, str], secret: str) -> WebhookEvent:
        """Verify a delivery by Standard Webhooks and return its event. It needs no connection.

        `body` is the request's body exactly as received; `secret` starts with `whsec_`. Deliveries more than
        five minutes old or new are refused. Raises WebhookVerificationError.
        """
        # Here, because few clients receive webhooks.
        from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook
        from standardwebhooks.webhooks import WebhookVerificationError as SignatureError

        try:
            Webhook(secret).verify(body, dict(headers.items()), json_parse=False)
            return WebhookEvent.model_validate_json(body)
        except (SignatureError, EmptyWebhookSecretError) as error:
            raise WebhookVerificationError(f"The webhook is refused: {error}.") from error
        except ValueError as error:
            # Base64, UTF-8, the header's form and the body's JSON all end here.
            raise WebhookVerificationError(f"The webhook or its secret is malformed: {error}.") from error


class Webhooks(_Unwrapping):
    """`client.webhooks`: endpoints, and `unwrap` for receivers."""

    def __init__(self, client: Transport) -> None:
        self._client = client
        self.endpoints = WebhookEndpoints(client)

    def event_types(self) -> list[str]:
        """Return the names of the events that endpoints can subscribe to. Raises APIError."""
        return self._client.send(_EVENT_TYPES).data


class AsyncWebhooks(_Unwrapping):
    """`client.webhooks`, awaited, except for `unwrap`."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client
        self.endpoints = AsyncWebhookEndpoints(client)

    async def event_types(self) -> list[str]:
        """Return the names of the events that endpoints can subscribe to. Raises APIError."""
        return (await self._client.send(_EVENT_TYPES)).data
