"""One delivery on the wire: body and signed headers, by Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
from standardwebhooks.webhooks import Webhook


def body_of(event_id: str, kind: str, created_at: int, object_id: str) -> bytes:
    """Return an event as JSON; every try sends the same bytes. `created_at` is in unix seconds."""
    return orjson.dumps(
        {"id": event_id, "object": "event", "type": kind, "created_at": created_at, "data": {"id": object_id}}
    )


def signed_headers(secret: str, event_id: str, body: bytes, at: datetime | None = None) -> dict[str, str]:
    """Return the headers of a try made at `at`, by default now: HMAC-SHA256 over `{id}.{timestamp}.{body}`."""
    at = at or datetime.now(UTC)
    return {
        "content-type": "application/json",
        "user-agent": "burnish-webhooks",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(event_id, at, body.decode()),
    }
