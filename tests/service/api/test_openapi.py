"""The API's description: valid, complete, and its examples are what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.fixtures.openapi import api_document

DOCUMENT = api_document()
OPERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    operation["operationId"]: (method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
_REGISTRY: Registry[Any] = Registry().with_resource("urn:document", DRAFT202012.create_resource(DOCUMENT))


def problems(schema: dict[str, Any], value: Any) -> list[str]:
    anchored = _anchored(schema)
    validator = OAS31Validator(anchored, registry=_REGISTRY)
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(value)]


def _anchored(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: f"urn:document{value}" if key == "$ref" else _anchored(value) for key, value in schema.items()}
    return [_anchored(item) for item in schema] if isinstance(schema, list) else schema


def examples_of(content: dict[str, Any]) -> Iterator[Any]:
    if "example" in content:
        yield content["example"]
    for named in content.get("examples", {}).values():
        yield named["value"]


@pytest.mark.slow
def test_the_document_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_every_operation_has_an_id_of_its_own() -> None:
    assert len(OPERATIONS) == sum(len(methods) for methods in DOCUMENT["paths"].values())


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_described(name: str) -> None:
    _, path, operation = OPERATIONS[name]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name)
    assert operation["summary"]
    assert operation["description"].endswith("."), operation["description"]
    (tag,) = operation["tags"]
    assert tag in {described["name"] for described in DOCUMENT["tags"]}
    assert operation["security"] == ([{"HTTPBearer": []}] if path.startswith("/v1") else [])


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operations_answers_are_declared(name: str) -> None:
    method, path, operation = OPERATIONS[name]
    answers = operation["responses"]
    assert {"200", "400", "500"} <= set(answers)
    assert "422" not in answers
    if path.startswith("/v1"):
        assert {"401", "403", "503"} <= set(answers)
        keeps_nothing = name in ("create_chat_completion", "run_grader", "validate_grader")
        assert ("507" in answers) == (method != "get" and not keeps_nothing)
        assert "404" in answers or "{" not in path
    json_body = "application/json" in operation.get("requestBody", {}).get("content", {})
    assert ("413" in answers) == (json_body or name == "upload_file")
    for status, answer in answers.items():
        assert {"x-request-id", "openai-processing-ms"} <= set(answer["headers"])
        if int(status) >= 400:
            assert "x-should-retry" in answer["headers"]
            content = answer["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
            assert content["examples"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_body_has_examples_that_are_valid(name: str) -> None:
    operation = OPERATIONS[name][2]
    bodies = [*operation.get("requestBody", {}).get("content", {}).items()]
    for answer in operation["responses"].values():
        bodies += answer.get("content", {}).items()
    assert bodies
    for media_type, content in bodies:
        shown = list(examples_of(content))
        assert shown or media_type in ("application/zip", "application/octet-stream"), f"{media_type} has no example"
        for example in shown:
            assert problems(content["schema"], example) == []
    for parameter in operation.get("parameters", []):
        for example in examples_of(parameter):
            assert problems(parameter["schema"], example) == []


def test_a_wrong_example_would_be_found() -> None:
    schema = {"$ref": "#/components/schemas/JobCreate"}
    assert problems(schema, {"model": "m", "training_file": "file-a", "seed": -1, "method": {"type": "sft"}})
    assert problems(
        schema, {"model": "m", "training_file": "f", "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}}}
    )
    assert problems(schema, {"model": "m", "training_file": "f", "method": {"type": "dpo", "supervised": 1}}) == []


@pytest.mark.parametrize(
    ("name", "status", "headers"),
    [
        ("create_job", "200", {"Idempotent-Replayed"}),
        ("get_file_content", "206", {"ETag", "Content-Range", "Repr-Digest"}),
        ("get_file_content", "416", {"Content-Range"}),
        ("download_adapter", "200", {"ETag", "Content-Disposition", "Content-Digest", "Accept-Ranges"}),
        ("list_jobs", "401", {"WWW-Authenticate"}),
    ],
)
def test_headers_are_declared(name: str, status: str, headers: set[str]) -> None:
    assert headers <= set(OPERATIONS[name][2]["responses"][status]["headers"])


def test_streams_pages_and_archives_have_their_media_types() -> None:
    def types(name: str) -> set[str]:
        return set(OPERATIONS[name][2]["responses"]["200"]["content"])

    assert types("list_events") == {"application/json", "text/event-stream"}
    assert types("get_report") == {"application/json", "text/html"}
    assert types("download_adapter") == {"application/zip"}
    assert types("get_file_content") == {"application/jsonl", "text/csv"}
    assert set(OPERATIONS["upload_file"][2]["requestBody"]["content"]) == {"multipart/form-data"}
