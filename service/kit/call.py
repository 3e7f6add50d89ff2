"""The API call that is being served: the caller and its request. All threads that serve the call share the object."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class ApiCall:
    """Filled in on its way: by the outermost middleware, then by the check of the key, then by what it does."""

    request_id: str
    method: str
    address: str | None = None
    """The caller's network address, as far as the server can see it."""
    route: str = ""
    """The path as it is declared, with the names of its parameters: `/v1/files/{file_id}`."""
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    key_id: str | None = None
    project_id: str | None = None
    """The key's project."""
    object_id: str | None = None
    """What the call was about, if neither the path nor a new row says so."""
    replayed: bool = False
    """Whether an earlier answer is given again."""
    recorded: bool = False
    """Whether the audit log has the call."""
    unrecorded: bool = False
    """Whether a refusal is to leave no trace, so that a flood of calls writes nothing."""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    """Further headers of the answer, whatever it is."""


CALL: ContextVar[ApiCall | None] = ContextVar("call", default=None)
"""The call of this thread or task; None in the other processes."""
