"""Every operation is called with what its description allows and with what it does not; on both databases if in full.

The server keeps to its description: no server error, no status, header, media type or body that is not declared,
nothing accepted that is declared to be wrong, nothing answered without a key. `make fuzz` does the same for longer.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Generator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.context import open_context
from service.kit.settings import Settings
from tests.fixtures.objects import Objects, make_objects
from tests.fixtures.openapi import api_document
from tests.fixtures.postgres import new_database
from tests.fixtures.scale import FULL
from tests.fixtures.service import RunningApi, migrate, run_api, write_catalog

pytestmark = pytest.mark.integration

_REQUESTED_EXAMPLES = os.environ.get("BURNISH_FUZZ_EXAMPLES", "15" if FULL else "")
EXAMPLES = int(_REQUESTED_EXAMPLES or 6)
# The short form calls the operations on PostgreSQL alone, which takes the fewer texts and numbers of the two.
DATABASES = ["sqlite", "postgresql"] if _REQUESTED_EXAMPLES else ["postgresql"]
SCHEMA = schemathesis.openapi.from_dict(copy.deepcopy(api_document()))
# The key is sent by the test, and a query may have more than is declared: OpenAI's clients send such things too.
SCHEMA.config.generation.update(with_security_parameters=False, allow_extra_parameters=False)
# A text that is longer than it may be can make a body that is larger than it may be.
_REJECTED = SCHEMA.config.checks.negative_data_rejection
_REJECTED.expected_statuses = [*_REJECTED.expected_statuses, "413"]
OPERATIONS = {
    operation["operationId"]: SCHEMA[path][method.upper()]
    for path, methods in api_document()["paths"].items()
    for method, operation in methods.items()
}
NEVER_DONE = {
    "upload_file": "no made-up form is a dataset with a name",
    "download_model": "the job that there is leaves an adapter",
    "download_export": "no worker makes the export, which is answered by the 409 that is declared",
    "test_webhook_endpoint": "nobody listens",
    "create_chat_completion": "no engine runs, which is answered by the 503 that is declared",
    "preview_job": "no worker runs, which is answered by the 409 that is declared",
}
"""What made-up requests do not bring about; the other tests of these operations do."""
_NEED_OTHERS = ("create_chat_completion",)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
bounded = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module", params=DATABASES)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[RunningApi, None, None]:
    folder = tmp_path_factory.mktemp("fuzzed")
    given: dict[str, Any] = {"data": folder, "catalog": write_catalog(folder, folder), "poll_seconds": 0.05}
    given |= {"webhook_allowed_networks": "127.0.0.0/8", "max_file_bytes": 1_000_000}
    if request.param == "sqlite":
        yield from _served(Settings(**given))
    else:
        with new_database() as url:
            yield from _served(Settings(**given, database_url=url, secret_key="k" * 32))


def _served(made: Settings) -> Generator[RunningApi, None, None]:
    migrate(made)
    context = open_context(made)
    with run_api(context) as api:
        yield api


@pytest.fixture
def objects(world: RunningApi, request: pytest.FixtureRequest) -> Objects:
    return make_objects(world, project=request.node.name[:64])


def _real(case: schemathesis.Case, objects: Objects) -> schemathesis.Case:
    """Let a body name objects that are there, where it names any."""
    if isinstance(case.body, dict):
        for field, value in objects.body.items():
            if field in case.body:
                case.body[field] = value
    return case


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_keeps_to_its_description(world: RunningApi, objects: Objects, name: str) -> None:
    operation = OPERATIONS[name]
    mine = {parameter.name: objects.path(name, parameter.name) for parameter in operation.path_parameters}
    positive = operation.as_strategy(GenerationMode.POSITIVE, path_parameters=mine)
    meeting_objects = positive.map(lambda case: _real(case, objects))
    others = st.one_of(
        positive,
        operation.as_strategy(GenerationMode.POSITIVE),
        operation.as_strategy(GenerationMode.NEGATIVE, path_parameters=mine),
    )
    # Where nobody is there to do it, 503 is the right answer; every other one of these is a fault.
    checks = [check for check in CHECKS if name not in _NEED_OTHERS or check is not not_a_server_error]
    statuses: set[int] = set()
    root = world.url.removesuffix("/v1")

    def hold(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(session=session, base_url=root, checks=checks, timeout=30)
        assert answer.status_code < 500 or (name in _NEED_OTHERS and answer.status_code == 503)
        statuses.add(answer.status_code)

    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {objects.key}"
        settings(bounded, max_examples=max(8, EXAMPLES // 3))(given(case=meeting_objects)(hold))()
        assert statuses & {200, 206} or name in NEVER_DONE, f"{name} was never carried out: {statuses}"
        bounded(given(case=others)(hold))()


@pytest.mark.parametrize("name", [name for name in OPERATIONS if not name.startswith("check_")])
def test_an_operation_asks_for_a_key(world: RunningApi, objects: Objects, name: str) -> None:

    @settings(bounded, max_examples=1)
    @given(case=OPERATIONS[name].as_strategy())
    def hold(case: schemathesis.Case) -> None:
        headers = {"Authorization": f"Bearer {objects.key}"}
        case.call_and_validate(
            base_url=world.url.removesuffix("/v1"), headers=headers, checks=[ignored_auth], timeout=30
        )

    hold()
