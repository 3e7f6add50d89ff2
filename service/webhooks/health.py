"""When an endpoint is given up: at once where it says so, else after five days without a single success."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

from service.webhooks import repository
from service.webhooks.post import Outcome
from service.webhooks.schedule import DISABLE_AFTER
from service.webhooks.tables import WebhookEndpoint

_log = logging.getLogger(__name__)


def note(session: Session, endpoint: WebhookEndpoint, outcome: Outcome) -> None:
    """Keep in an endpoint's row what a delivery came to, and disable the endpoint where that is called for."""
    if outcome.error is None:
        endpoint.failing_since = None
        return
    now = repository.now(session)
    if endpoint.failing_since is None:
        endpoint.failing_since = now
    if endpoint.disabled_at is not None:
        return
    if outcome.gone:
        _disable(session, endpoint, "The receiver answered 410: it wants no more deliveries.")
    elif now - endpoint.failing_since >= DISABLE_AFTER:
        hours = round(DISABLE_AFTER / 3600)
        _disable(session, endpoint, f"Every delivery failed for {hours} hours; the last one: {outcome.error}")


def enable(endpoint: WebhookEndpoint) -> None:
    """Tell an endpoint again what happens from now on."""
    endpoint.disabled_at = endpoint.disabled_reason = endpoint.failing_since = None


def _disable(session: Session, endpoint: WebhookEndpoint, reason: str) -> None:
    repository.disable(session, endpoint, reason=reason)
    _log.warning("webhook endpoint %s is disabled: %s", endpoint.id, reason)
