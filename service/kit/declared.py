"""The errors that a route can answer, declared by examples of them: status, words and body are the error's own."""

from __future__ import annotations

import re
from typing import Any

from service.kit.errors import ServiceError

Responses = dict[int | str, dict[str, Any]]


def declare_errors(*errors: ServiceError) -> Responses:
    """Return a route's `responses` for the errors that are its own.

    What any operation may answer (a wrong request, no key, a scope that lacks, …) `service.api.reference` adds.
    """
    declared: Responses = {}
    for error in errors:
        said = (type(error).__doc__ or "").partition("\n")[0].removesuffix(".")
        answer = declared.setdefault(
            error.status, {"description": said, "content": {"application/json": {"examples": {}}}}
        )
        if said not in answer["description"]:
            answer["description"] += f"; or: {said[:1].lower()}{said[1:]}"
        named = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
        answer["content"]["application/json"]["examples"][named] = {"summary": said, "value": error.error_body()}
    return declared
