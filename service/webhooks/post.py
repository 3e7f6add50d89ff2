"""One try: a POST, and what became of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from service.kit.fair_turns import TurnsExhausted
from service.webhooks.guard import AddressRefused, Unresolvable, on_behalf_of
from service.webhooks.message import sign_headers
from service.webhooks.target import DeliveryTarget

_UNREADABLE = (
    "not sent: the signing secret does not open with this BURNISH_SECRET_KEY; rotate the endpoint's secret, or give "
    "the service the secret that it had before"
)


@dataclass(frozen=True)
class DeliveryOutcome:
    """What a try came to. `error` is None if the receiver took the event."""

    status_code: int | None
    error: str | None
    duration_ms: int
    retry_after: str | None = None

    @property
    def gone(self) -> bool:
        """Whether the receiver has unsubscribed (410)."""
        return self.status_code == 410


async def post_event(
    client: httpx.AsyncClient, target: DeliveryTarget, event_id: str, body: bytes, *, timeout: float
) -> DeliveryOutcome:
    """Post an event once, `timeout` seconds for all of it, however slowly the receiver drips. Raises nothing.

    Only the status counts: the answer's body is never read.
    """
    began = time.monotonic()
    if not target.secrets:
        return DeliveryOutcome(None, _UNREADABLE, 0)
    try:
        async with asyncio.timeout(timeout):
            headers = sign_headers(target.secrets, event_id, body)
            async with client.stream(
                "POST", target.url, content=body, headers=headers, extensions=on_behalf_of(target.project_id)
            ) as response:
                status, response_headers = response.status_code, response.headers
    except TimeoutError:
        return DeliveryOutcome(None, f"no answer within {timeout:g} s", _milliseconds_since(began))
    except (AddressRefused, Unresolvable) as denial:
        return DeliveryOutcome(None, f"{denial}.", _milliseconds_since(began))
    except TurnsExhausted as error:
        return DeliveryOutcome(None, f"not sent: {error.message}", _milliseconds_since(began))
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        return DeliveryOutcome(None, f"{type(error).__name__}: {error}"[:500], _milliseconds_since(began))
    return DeliveryOutcome(
        status,
        _explain_status(status, response_headers),
        _milliseconds_since(began),
        response_headers.get("retry-after"),
    )


def _explain_status(status: int, headers: Mapping[str, str]) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        target = headers.get("location", "nowhere")
        return f"answered {status}, a redirect to {target[:200]}: redirects are not followed, configure the final URL"
    return f"answered {status}"


def _milliseconds_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
