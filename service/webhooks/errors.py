"""Errors of webhook endpoints."""

from __future__ import annotations

from service.kit.errors import Conflict, InvalidRequest, NotFound


class EndpointNotFound(NotFound):
    """No endpoint of this project has the id."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(f"No such webhook endpoint: {endpoint_id[:64]}", param="webhook_endpoint_id")


class EventNotFound(NotFound):
    """No event of this project has the id, or it was forgotten."""

    def __init__(self, event_id: str) -> None:
        super().__init__(
            f"No such event: {event_id[:64]}. GET /v1/webhook_endpoints/{{id}}/deliveries lists what was delivered; "
            "events are kept for 30 days.",
            param="event_ids",
        )


class TooManyEndpoints(Conflict):
    """The project has as many endpoints as it may have."""

    def __init__(self, most: int) -> None:
        super().__init__(f"The project has {most} webhook endpoints, the most that there may be: delete one.")


class EndpointDisabled(Conflict):
    """The endpoint is disabled, so nothing is delivered to it."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(
            f"The webhook endpoint {endpoint_id} is disabled: enable it by POST /v1/webhook_endpoints/{endpoint_id}."
        )


class NoAnswer(InvalidRequest):
    """A test reached no receiver."""

    code = "webhook_unreachable"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"The receiver at {url} did not answer: {reason.rstrip('.')}.", param="url")
