"""Limits: what a project may use and uses; `client.limits()` for one's own, `client.projects` for those of all."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from burnish._request import Request, parser_of, path_segment
from burnish.schemas import ProjectLimits

Limit = int | Literal["default"] | None


class LimitChanges(TypedDict, total=False):
    """New limits: a number, None for no limit, `default` for the service's setting. What is left out stays."""

    stored_bytes: Limit
    running_jobs: Limit
    queued_jobs: Limit
    training_minutes: Limit
    requests_per_minute: Limit
    tokens_per_minute: Limit


OWN = Request("GET", "/limits", parser_of(ProjectLimits))


def retrieve_limits_request(project_id: str) -> Request[ProjectLimits]:
    """Ask for a project's limits."""
    return Request("GET", _limits_path(project_id), parser_of(ProjectLimits))


def update_limits_request(project_id: str, changes: LimitChanges) -> Request[ProjectLimits]:
    """Set a project's limits."""
    body: dict[str, Any] = dict(changes)
    return Request("POST", _limits_path(project_id), parser_of(ProjectLimits), json=body)


def _limits_path(project_id: str) -> str:
    return f"/organization/projects/{path_segment(project_id)}/limits"
