"""Webhooks that arrive at your receiver: is this one from your server, and what does it say?"""

from __future__ import annotations

from collections.abc import Mapping

from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook
from standardwebhooks.webhooks import WebhookVerificationError as SignatureError

from burnish.errors import WebhookVerificationError
from burnish.schemas import WebhookEvent


class Webhooks:
    """`client.webhooks`. It needs no connection."""

    def unwrap(self, body: bytes | str, headers: Mapping[str, str], secret: str) -> WebhookEvent:
        """Verify a delivery by Standard Webhooks and return its event.

        `body` is the request's body exactly as received; `secret` starts with `whsec_`. Deliveries more than
        five minutes old or new are refused. Raises WebhookVerificationError.
        """
        try:
            Webhook(secret).verify(body, dict(headers.items()), json_parse=False)
            return WebhookEvent.model_validate_json(body)
        except (SignatureError, EmptyWebhookSecretError) as error:
            raise WebhookVerificationError(f"The webhook is refused: {error}.") from error
        except ValueError as error:
            # Base64, UTF-8, the header's form and the body's JSON all end here.
            raise WebhookVerificationError(f"The webhook or its secret is malformed: {error}.") from error
