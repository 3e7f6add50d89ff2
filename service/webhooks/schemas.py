"""What the wire shows of webhook endpoints, and what requests may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, field_validator, model_validator

from service.tables.webhooks import WebhookAttemptRow, WebhookEndpointRow
from service.webhooks.message import EVENT_TYPES

EndpointName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)]
Url = Annotated[str, StringConstraints(max_length=2048)]


def _check_event_types(types: list[str]) -> list[str]:
    for event_type in types:
        if event_type not in EVENT_TYPES:
            raise ValueError(f"'{event_type[:64]}' is not an event of this service; it has {', '.join(EVENT_TYPES)}")
    return list(dict.fromkeys(types))


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EndpointCreate(_Body):
    """The body of a creation."""

    name: EndpointName = Field(examples=["Billing"])
    url: Url = Field(examples=["https://example.com/hooks/burnish"])
    event_types: list[str] = Field(min_length=1, max_length=64, examples=[list(EVENT_TYPES)])

    _check_types = field_validator("event_types")(_check_event_types)


class EndpointUpdate(_Body):
    """The body of an update: what is left out stays. An update enables a disabled endpoint again."""

    name: EndpointName | None = Field(None, examples=["Billing, second try"])
    url: Url | None = None
    event_types: list[str] | None = Field(None, min_length=1, max_length=64)

    @field_validator("event_types")
    @classmethod
    def _check_types(cls, types: list[str] | None) -> list[str] | None:
        return None if types is None else _check_event_types(types)


class SecretRotate(_Body):
    """The body of a rotation."""

    keep_old_secret_active_for_24_hours: StrictBool = False


class EndpointTest(_Body):
    """The body of a test."""

    event_type: str = Field(examples=[EVENT_TYPES[0]])

    @field_validator("event_type")
    @classmethod
    def _check_type(cls, event_type: str) -> str:
        return _check_event_types([event_type])[0]


class Replay(_Body):
    """The body of a replay: the events to deliver again, by their ids or by when they happened."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        json_schema_extra={"anyOf": [{"required": ["event_ids"]}, {"required": ["from", "to"]}]},
    )

    event_ids: list[str] | None = Field(None, min_length=1, max_length=1000, examples=[["evt_abc123"]])
    begin: float | None = Field(None, alias="from", ge=0, le=1e12, strict=True, description="Unix seconds, included.")
    end: float | None = Field(None, alias="to", ge=0, le=1e12, strict=True, description="Unix seconds, not included.")

    @model_validator(mode="after")
    def _one_way(self) -> Replay:
        span = (self.begin, self.end)
        if (self.event_ids is None) != (None not in span) or (self.event_ids is not None and span != (None, None)):
            raise ValueError("say either event_ids, or both from and to in unix seconds")
        if self.begin is not None and self.end is not None and self.begin >= self.end:
            raise ValueError("from must lie before to")
        return self


class EndpointObject(BaseModel):
    """OpenAI's webhook endpoint; `enabled`, `disabled_at`, `disabled_reason` and `failing_since` are Burnish's."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str
    event_types: list[str]
    created_at: int
    updated_at: int
    signing_secret_hint: str
    enabled: bool
    disabled_at: int | None
    disabled_reason: str | None
    failing_since: int | None

    @classmethod
    def from_row(cls, row: WebhookEndpointRow) -> EndpointObject:
        return cls(**_endpoint_facts(row))


class EndpointWithSecret(EndpointObject):
    """The same with its secret, as only creation and rotation answer it."""

    signing_secret: str = Field(repr=False)

    @classmethod
    def from_row_and_secret(cls, row: WebhookEndpointRow, secret: str) -> EndpointWithSecret:
        """Show an endpoint and its new secret."""
        return cls(**_endpoint_facts(row), signing_secret=secret)


def _endpoint_facts(row: WebhookEndpointRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "url": row.url,
        "event_types": row.event_types,
        "created_at": int(row.created_at),
        "updated_at": int(row.updated_at),
        "signing_secret_hint": row.secret_hint,
        "enabled": row.disabled_at is None,
        "disabled_at": _whole_seconds(row.disabled_at),
        "disabled_reason": row.disabled_reason,
        "failing_since": _whole_seconds(row.failing_since),
    }


def _whole_seconds(moment: float | None) -> int | None:
    return None if moment is None else int(moment)


class EndpointDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class EndpointTested(BaseModel):
    """The answer to a test. `success` is whether there was an answer; `status_code` is its status."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Literal[True] = True


class EventTypeList(BaseModel):
    """The events that endpoints can subscribe to."""

    object: Literal["list"] = "list"
    data: list[str] = Field(examples=[list(EVENT_TYPES)])


class DeliveryObject(BaseModel):
    """One try to deliver one event."""

    id: str
    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    webhook_endpoint_id: str
    event_id: str
    event_type: str
    url: str
    created_at: int
    status_code: int | None
    success: bool
    error: str | None
    duration_ms: int

    @classmethod
    def from_attempt(cls, endpoint_id: str, row: WebhookAttemptRow) -> DeliveryObject:
        return cls(
            id=row.id,
            webhook_endpoint_id=endpoint_id,
            event_id=row.event_id,
            event_type=row.event_type,
            url=row.url,
            created_at=int(row.at),
            status_code=row.status_code,
            success=row.error is None,
            error=row.error,
            duration_ms=row.duration_ms,
        )


class Replayed(BaseModel):
    """The answer to a replay: the events that are on their way again."""

    object: Literal["webhook_endpoint.replay"] = "webhook_endpoint.replay"
    webhook_endpoint_id: str
    event_ids: list[str]
