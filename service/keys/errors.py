"""Errors of projects and keys."""

from __future__ import annotations

from collections.abc import Iterable

from service.kit.errors import Conflict, NotFound, PermissionDenied, Unauthenticated


class NoKey(Unauthenticated):
    """The request has no API key."""

    def __init__(self) -> None:
        super().__init__(
            "You didn't provide an API key. Send it as the header `Authorization: Bearer YOUR_KEY`; the embedded "
            "service writes the first key to client.json in its data folder."
        )


class WrongKey(Unauthenticated):
    """The API key is unknown, or was revoked."""

    def __init__(self) -> None:
        super().__init__(
            "Incorrect API key provided: it is unknown here or was revoked. "
            "`burnish-server keys create` makes a new one."
        )


class ScopeMissing(PermissionDenied):
    """The API key lacks the scope that the request needs."""

    def __init__(self, scopes: Iterable[str], missing_scope: str) -> None:
        super().__init__(
            f"This API key has the scopes {' and '.join(sorted(scopes))}; this request needs '{missing_scope}'. "
            f"Use another key, or have one made by `burnish-server keys create --scope {missing_scope}`."
        )


class ProjectNotFound(NotFound):
    """No project has the id."""

    def __init__(self, project_id: str) -> None:
        super().__init__(f"No such project: {project_id[:64]}", param="project_id")


class KeyNotFound(NotFound):
    """No key of the project has the id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"No such API key in this project: {key_id[:64]}", param="key_id")


class NameTaken(Conflict):
    """A project of this name exists."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a project '{name}' already; choose another name.", param="name")
