"""The API's description, completed: what every operation answers beside its own, headers, examples, methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.api.errors import ErrorAnswer, ErrorObject, unforeseen_body
from service.api.examples import ANSWERS, SchemaExamples
from service.api.guards import BodyTooLarge, NulInUrl
from service.keys.errors import NoKey, ScopeMissing, WrongKey
from service.keys.idempotency import IdempotencyKeyReused
from service.kit.declared import declare_errors
from service.kit.errors import InvalidRequest, NoSpace, ServiceError, Unavailable
from service.limits.errors import RateLimited
from trainer.contract.methods import METHODS_BY_TYPE

Json = dict[str, Any]
_REF = "#/components/schemas/{model}"

TAGS: list[Json] = [
    {"name": "Files", "description": "Datasets, uploaded as one stream and checked on the way; results of jobs."},
    {"name": "Uploads", "description": "Large files in parts, sent in parallel; uploads can be resumed."},
    {"name": "Fine-tuning", "description": "Jobs with their events, checkpoints and results; sharing of models."},
    {"name": "Models", "description": "The base models of the catalog, and what jobs made of them."},
    {"name": "Chat", "description": "Conversations with bases, and with what jobs made of them."},
    {"name": "Graders", "description": "Rules that give an answer a reward, tried out before a job trains on them."},
    {"name": "Webhooks", "description": "Receivers of events about jobs, and the log of what was delivered."},
    {"name": "Administration", "description": "Projects and keys, for keys with the scope `admin`."},
    {"name": "Health", "description": "Whether the process lives, and whether it can work. They need no key."},
]
_KEEP_NOTHING = frozenset({"create_chat_completion", "run_grader", "validate_grader"})
"""Operations that do not only read, but write nothing either."""
_HEADERS: Json = {
    "RequestId": {
        "description": "The request's id, which the service's log has too: the caller's own if it sent one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,128}$"},
        "example": "req_5f0d1c2b3a49586778695a4b3c2d1e0f",
    },
    "ProcessingMs": {
        "description": "How long the answer took to begin, in milliseconds.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "example": "4",
    },
    "ShouldRetry": {
        "description": "Whether the same request may succeed later; OpenAI's clients obey it.",
        "required": True,
        "schema": {"type": "string", "enum": ["true", "false"]},
        "example": "false",
    },
    "Authenticate": {
        "description": "How to authenticate (RFC 9110).",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
        "example": "Bearer",
    },
    "Replayed": {
        "description": "`true` if this is the earlier answer to the same `Idempotency-Key`.",
        "schema": {"type": "string", "const": "true"},
        "example": "true",
    },
}


def operation_id(route: APIRoute) -> str:
    """Return an operation's id: its function's name, which stays when paths move."""
    return route.name


def describe_api(app: FastAPI) -> None:
    """Make `app` describe itself completely."""
    generate = app.openapi

    def complete_openapi() -> Json:
        if app.openapi_schema is None:
            _complete_document(generate())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = complete_openapi


def _complete_document(document: Json) -> None:
    components = document["components"]["schemas"]
    for framework in ("HTTPValidationError", "ValidationError"):
        components.pop(framework, None)
    _add_schema(components, "ErrorAnswer", ErrorAnswer.model_json_schema(ref_template=_REF))
    _add_methods(components)
    document["components"]["headers"] = _HEADERS
    document["components"]["securitySchemes"]["HTTPBearer"]["bearerFormat"] = "burnish-…"
    examples = SchemaExamples(components)
    for path, operation in _walk_operations(document):
        operation["summary"] = operation["summary"].capitalize()
        operation.setdefault("security", [])
        _add_errors(path, operation)
        _add_headers(operation)
        _add_examples(operation, examples)


def _walk_operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            operation["x-method"] = method
            yield path, operation


def _add_schema(components: Json, name: str, schema: Json) -> None:
    """Add a schema, and those that it defines inside of it."""
    components.update(schema.pop("$defs", {}))
    components[name] = schema


def _add_methods(components: Json) -> None:
    """Describe `method`, which the request's model takes as it comes: blocks of other types are ignored there."""
    types: list[str] = []
    for kind, method in METHODS_BY_TYPE.items():
        schema = method.model_json_schema(ref_template=_REF)
        block = {"anyOf": [schema["properties"][kind], {"type": "null"}]}
        schema |= {"additionalProperties": True, "required": ["type"]}
        schema["properties"] = {"type": {"const": kind, "type": "string"}, kind: block}
        _add_schema(components, method.__name__, schema)
        types.append(method.__name__)
    job_properties = components["JobCreate"]["properties"]
    refs = [{"$ref": _REF.format(model=name)} for name in types]
    mapping = {kind: ref["$ref"] for kind, ref in zip(METHODS_BY_TYPE, refs, strict=True)}
    components["Method"] = {"oneOf": refs, "discriminator": {"propertyName": "type", "mapping": mapping}}
    job_properties["method"]["anyOf"] = [{"$ref": _REF.format(model="Method")}, {"type": "null"}]
    default_method = {"$ref": _REF.format(model="SupervisedHyperparameters")}
    job_properties["hyperparameters"]["anyOf"] = [default_method, {"type": "null"}]


def _add_errors(path: str, operation: Json) -> None:
    """Declare what any operation may answer, in front of what the route declares itself."""
    answers: Json = operation["responses"]
    answers.pop("422", None)
    for status, answer in declare_errors(*_common_errors(path, operation)).items():
        own = answers.get(str(status))
        if own is None:
            answers[str(status)] = answer
        else:
            own["description"] = f"{own['description']}; or: {answer['description']}"
            examples = own["content"]["application/json"]["examples"]
            examples.update(answer["content"]["application/json"]["examples"])
    answers["500"] = {
        "description": "The service made an error",
        "content": {"application/json": {"examples": {"unforeseen": {"value": unforeseen_body("req_abc123")}}}},
    }
    for status, answer in answers.items():
        if int(status) >= 400:
            _complete_error(answer["content"]["application/json"])
    operation["responses"] = dict(sorted(answers.items()))


def _complete_error(content: Json) -> None:
    content["schema"] = {"$ref": _REF.format(model="ErrorAnswer")}
    for example in content["examples"].values():
        # FastAPI leaves members that are null out of what a route declares.
        error = example["value"]["error"]
        example["value"] = {"error": {name: error.get(name) for name in ErrorObject.model_fields} | error}


def _common_errors(path: str, operation: Json) -> list[ServiceError]:
    errors: list[ServiceError] = [NulInUrl()]
    if not path.startswith("/v1"):
        return errors
    if operation.get("parameters") or "requestBody" in operation:
        errors.insert(0, InvalidRequest("limit: must be at least 1.", param="limit"))
    scope = "read" if operation["x-method"] == "get" else "write"
    scope = "admin" if path.startswith("/v1/organization") else scope
    errors += [NoKey(), WrongKey(), ScopeMissing({"read"} if scope == "write" else {"write"}, scope), Unavailable("")]
    too_many = "This project sends more than 600 requests a minute. The next one is let through in 2 seconds."
    errors.append(RateLimited(too_many, kind="requests", seconds=2))
    if operation["x-method"] != "get" and operation["operationId"] not in _KEEP_NOTHING:
        errors.append(NoSpace("The disk of the database is full: nothing was kept. Free some space and try again."))
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        errors.append(BodyTooLarge())
    if _takes_idempotency_key(operation):
        errors.append(IdempotencyKeyReused("6f1c2d3e"))
    return errors


def _takes_idempotency_key(operation: Json) -> bool:
    return any(parameter["name"].lower() == "idempotency-key" for parameter in operation.get("parameters", []))


def _add_headers(operation: Json) -> None:
    for status, answer in operation["responses"].items():
        headers = answer.setdefault("headers", {})
        headers["x-request-id"] = _refer_to_header("RequestId")
        headers["openai-processing-ms"] = _refer_to_header("ProcessingMs")
        if int(status) >= 400:
            headers["x-should-retry"] = _refer_to_header("ShouldRetry")
        if status == "401":
            headers["WWW-Authenticate"] = _refer_to_header("Authenticate")
        if status == "200" and _takes_idempotency_key(operation):
            headers["Idempotent-Replayed"] = _refer_to_header("Replayed")
    operation.pop("x-method")


def _refer_to_header(name: str) -> Json:
    return {"$ref": f"#/components/headers/{name}"}


def _add_examples(operation: Json, examples: SchemaExamples) -> None:
    """Show an example of every body that has none."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        if not content.keys() & {"example", "examples"}:
            content["example"] = examples.make_example(content["schema"], optional=False)
    answer = operation["responses"]["200"]
    if answer["description"] == "Successful Response":
        answer["description"] = "Done"
    for media_type, content in answer.get("content", {}).items():
        if media_type == "application/json" and not content.keys() & {"example", "examples"}:
            content["example"] = examples.make_example(content["schema"])
            if operation["operationId"] in ANSWERS:
                content["example"] |= ANSWERS[operation["operationId"]]
