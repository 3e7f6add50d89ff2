"""One delivery on the wire: body and signed headers, by Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import orjson
from standardwebhooks.webhooks import Webhook

EVENT_TYPES = ("fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled")
"""The types of events that receivers can get."""


def body_of(event_id: str, kind: str, created_at: int, object_id: str) -> bytes:
    """Return an event as JSON; every try sends the same bytes. `created_at` is in unix seconds."""
    return orjson.dumps(
        {"id": event_id, "object": "event", "type": kind, "created_at": created_at, "data": {"id": object_id}}
    )


def sign_headers(secrets: Sequence[str], event_id: str, body: bytes) -> dict[str, str]:
    """Return the headers of a try made now: HMAC-SHA256 over `{id}.{timestamp}.{body}` with each of the secrets."""
    at = datetime.now(UTC)
    text = body.decode()
    return {
        "content-type": "application/json",
        "user-agent": "burnish-webhooks",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(event_id, at, text) for secret in secrets),
    }
