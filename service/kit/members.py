"""Members of objects on the wire that are left out if there is nothing to say, as OpenAI leaves them out."""

from __future__ import annotations

from typing import Any

from pydantic import Field


def _is_null(value: Any) -> bool:
    return value is None


def _describe_without_null(schema: dict[str, Any]) -> None:
    """Say in the OpenAPI file what is true of the answer: the member may be absent, and is never null."""
    schema.pop("default", None)
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    schema.update(kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})


LEFT_OUT_IF_NULL: Any = Field(exclude_if=_is_null, json_schema_extra=_describe_without_null)
"""Annotates a member whose type in OpenAI's specification is not nullable, but which an object need not have."""
