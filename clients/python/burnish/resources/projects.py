"""`/v1/organization/projects`: projects and their API keys, for keys with the scope `admin`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from burnish._pages import AsyncPage, Page
from burnish._request import Request, idempotency_headers, parser_of, path_segment, query_params
from burnish._transport import AsyncTransport, Transport
from burnish.resources import limits
from burnish.resources.limits import LimitChanges
from burnish.schemas import ApiKey, Deleted, PageData, Project, ProjectLimits

_PROJECTS = "/organization/projects"


def _keys_path(project_id: str, *rest: str) -> str:
    return "/".join((_PROJECTS, path_segment(project_id), "api_keys", *map(path_segment, rest)))


def _list_projects_request(after: str | None, limit: int | None) -> Request[PageData[Project]]:
    return Request("GET", _PROJECTS, parser_of(PageData[Project]), params=query_params(after=after, limit=limit))


def _create_project_request(name: str) -> Request[Project]:
    return Request("POST", _PROJECTS, parser_of(Project), headers=idempotency_headers(None), json={"name": name})


def _project_path(project_id: str) -> str:
    return f"{_PROJECTS}/{path_segment(project_id)}"


def _retrieve_project_request(project_id: str) -> Request[Project]:
    return Request("GET", _project_path(project_id), parser_of(Project))


def _update_project_request(project_id: str, name: str) -> Request[Project]:
    return Request("POST", _project_path(project_id), parser_of(Project), json={"name": name})


def _delete_project_request(project_id: str) -> Request[Deleted]:
    return Request("DELETE", _project_path(project_id), parser_of(Deleted))


def _list_keys_request(project_id: str, after: str | None, limit: int | None) -> Request[PageData[ApiKey]]:
    return Request(
        "GET", _keys_path(project_id), parser_of(PageData[ApiKey]), params=query_params(after=after, limit=limit)
    )


def _create_key_request(
    project_id: str, name: str, scopes: Sequence[str] | None, expires_in: int | None
) -> Request[ApiKey]:
    body: dict[str, Any] = {"name": name}
    if scopes is not None:
        body["scopes"] = list(scopes)
    if expires_in is not None:
        body["expires_in"] = expires_in
    return Request("POST", _keys_path(project_id), parser_of(ApiKey), headers=idempotency_headers(None), json=body)


def _revoke_key_request(project_id: str, key_id: str) -> Request[Deleted]:
    return Request("DELETE", _keys_path(project_id, key_id), parser_of(Deleted))


class Projects:
    """`client.projects`: projects and their keys, for administrators."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def list(self, *, after: str | None = None, limit: int | None = None) -> Page[Project]:
        """List all projects, the oldest first."""
        return Page(self._client, _list_projects_request(after, limit))

    def create(self, *, name: str) -> Project:
        """Make a project. Raises ConflictError if the name is taken."""
        return self._client.send(_create_project_request(name))

    def retrieve(self, project_id: str) -> Project:
        """Return a project by its id."""
        return self._client.send(_retrieve_project_request(project_id))

    def update(self, project_id: str, *, name: str) -> Project:
        """Give a project another name. Raises ConflictError if it is taken."""
        return self._client.send(_update_project_request(project_id, name))

    def delete(self, project_id: str) -> Deleted:
        """Delete a project with everything it owns: its keys stop at once, its data is erased some minutes later."""
        return self._client.send(_delete_project_request(project_id))

    def limits(self, project_id: str) -> ProjectLimits:
        """Return what a project may use and uses."""
        return self._client.send(limits.retrieve_limits_request(project_id))

    def update_limits(self, project_id: str, **changes: Unpack[LimitChanges]) -> ProjectLimits:
        """Set limits: a number, None for no limit, `default` for the service's setting. Others stay."""
        return self._client.send(limits.update_limits_request(project_id, changes))

    def list_keys(self, project_id: str, *, after: str | None = None, limit: int | None = None) -> Page[ApiKey]:
        """List a project's keys, revoked ones too."""
        return Page(self._client, _list_keys_request(project_id, after, limit))

    def create_key(
        self, project_id: str, *, name: str, scopes: Sequence[str] | None = None, expires_in: int | None = None
    ) -> ApiKey:
        """Make a key, by default to read and write for ever; `expires_in` is in seconds. Its `value` is shown once."""
        return self._client.send(_create_key_request(project_id, name, scopes, expires_in))

    def revoke_key(self, project_id: str, key_id: str) -> Deleted:
        """Revoke a key, at once and for ever."""
        return self._client.send(_revoke_key_request(project_id, key_id))


class AsyncProjects:
    """`client.projects`, to be awaited."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def list(self, *, after: str | None = None, limit: int | None = None) -> AsyncPage[Project]:
        """List all projects, the oldest first."""
        return await AsyncPage[Project].fetch(self._client, _list_projects_request(after, limit))

    async def create(self, *, name: str) -> Project:
        """Create a project; it has no keys yet."""
        return await self._client.send(_create_project_request(name))

    async def retrieve(self, project_id: str) -> Project:
        """Return a project by its id."""
        return await self._client.send(_retrieve_project_request(project_id))

    async def update(self, project_id: str, *, name: str) -> Project:
        """Give a project another name."""
        return await self._client.send(_update_project_request(project_id, name))

    async def delete(self, project_id: str) -> Deleted:
        """Delete a project with everything it owns."""
        return await self._client.send(_delete_project_request(project_id))

    async def limits(self, project_id: str) -> ProjectLimits:
        """Return what a project may use and uses."""
        return await self._client.send(limits.retrieve_limits_request(project_id))

    async def update_limits(self, project_id: str, **changes: Unpack[LimitChanges]) -> ProjectLimits:
        """Set limits; others stay."""
        return await self._client.send(limits.update_limits_request(project_id, changes))

    async def list_keys(
        self, project_id: str, *, after: str | None = None, limit: int | None = None
    ) -> AsyncPage[ApiKey]:
        """List a project's keys."""
        return await AsyncPage[ApiKey].fetch(self._client, _list_keys_request(project_id, after, limit))

    async def create_key(
        self, project_id: str, *, name: str, scopes: Sequence[str] | None = None, expires_in: int | None = None
    ) -> ApiKey:
        """Make a key; its `value` is shown once."""
        return await self._client.send(_create_key_request(project_id, name, scopes, expires_in))

    async def revoke_key(self, project_id: str, key_id: str) -> Deleted:
        """Revoke a key; requests with it fail at once."""
        return await self._client.send(_revoke_key_request(project_id, key_id))
