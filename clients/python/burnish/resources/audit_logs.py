"""`/v1/organization/audit_logs`: what was changed, by whom, and what was refused; for keys with the scope `admin`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from typing_extensions import TypedDict, Unpack

from burnish._pages import AsyncPage, Page
from burnish._request import Request, parser_of
from burnish._transport import AsyncTransport, Transport
from burnish.schemas import AuditLog, PageData


class AuditFilter(TypedDict, total=False):
    """What a list is narrowed to. `since` and `until` are unix seconds, both included."""

    event_types: Sequence[str]
    project_ids: Sequence[str]
    actor_ids: Sequence[str]
    resource_ids: Sequence[str]
    since: int
    until: int
    after: str
    limit: int


_NAMES = {"since": "effective_at[gte]", "until": "effective_at[lte]"}


def _list_audit_logs_request(filters: AuditFilter) -> Request[PageData[AuditLog]]:
    query = cast("dict[str, str | int | Sequence[str]]", filters)
    params = {
        _NAMES.get(name, name if isinstance(value, (str, int)) else f"{name}[]"): value for name, value in query.items()
    }
    return Request("GET", "/organization/audit_logs", parser_of(PageData[AuditLog]), params=params)


class AuditLogs:
    """`client.audit_logs`: who changed what, and when."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def list(self, **filters: Unpack[AuditFilter]) -> Page[AuditLog]:
        """List the log's entries, the newest first."""
        return Page(self._client, _list_audit_logs_request(filters))


class AsyncAuditLogs:
    """`client.audit_logs`, to be awaited."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def list(self, **filters: Unpack[AuditFilter]) -> AsyncPage[AuditLog]:
        """List the log's entries, the newest first."""
        return await AsyncPage[AuditLog].fetch(self._client, _list_audit_logs_request(filters))
