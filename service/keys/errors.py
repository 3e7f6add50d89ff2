"""Errors of projects and keys."""

from __future__ import annotations

from service.kit.errors import NotFound


class ProjectNotFound(NotFound):
    """No project has the id."""

    def __init__(self, project_id: str) -> None:
        super().__init__(f"No such project: {project_id[:64]}", param="project_id")


class KeyNotFound(NotFound):
    """No key of the project has the id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"No such API key in this project: {key_id[:64]}", param="key_id")
