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
    responses: Responses = {}
    for error in errors:
        summary = (type(error).__doc__ or "").partition("\n")[0].removesuffix(".")
        answer = responses.setdefault(
            error.status, {"description": summary, "content": {"application/json": {"examples": {}}}}
        )
        if summary not in answer["description"]:
            answer["description"] += f"; or: {summary[:1].lower()}{summary[1:]}"
        example_name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
        answer["content"]["application/json"]["examples"][example_name] = {
            "summary": summary,
            "value": error.error_body(),
        }
    return responses
