"""When an endpoint is given up: at once if it says so, else after five days without a single success."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

from service.tables.webhooks import WebhookEndpointRow
from service.webhooks import repository
from service.webhooks.post import DeliveryOutcome
from service.webhooks.schedule import DISABLE_AFTER

_log = logging.getLogger(__name__)


def note_outcome(session: Session, endpoint: WebhookEndpointRow, outcome: DeliveryOutcome) -> None:
    """Keep in an endpoint's row what a delivery came to, and disable the endpoint if that is called for."""
    if outcome.error is None:
        endpoint.failing_since = None
        return
    now = repository.database_time(session)
    if endpoint.failing_since is None:
        endpoint.failing_since = now
    if endpoint.disabled_at is not None:
        return
    if outcome.gone:
        _disable_endpoint(session, endpoint, "The receiver answered 410 (Gone): it accepts no more deliveries.")
    elif now - endpoint.failing_since >= DISABLE_AFTER:
        hours = round(DISABLE_AFTER / 3600)
        _disable_endpoint(session, endpoint, f"Every delivery failed for {hours} hours; the last one: {outcome.error}")


def enable_endpoint(endpoint: WebhookEndpointRow) -> None:
    """Enable an endpoint again, for events from now on."""
    endpoint.disabled_at = endpoint.disabled_reason = endpoint.failing_since = None


def _disable_endpoint(session: Session, endpoint: WebhookEndpointRow, reason: str) -> None:
    repository.disable_endpoint(session, endpoint, reason=reason)
    _log.warning("webhook endpoint %s is disabled: %s", endpoint.id, reason)
