from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from openai import AuthenticationError, NotFoundError, OpenAI

from service.kit.log import REQUEST_ID
from tests.fixtures.service import GOOD_JSONL, RunningApi


def test_health_needs_no_key(api: RunningApi) -> None:
    root = api.url.removesuffix("/v1")
    assert httpx.get(f"{root}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{root}/readyz").json() == {"status": "ok"}


@pytest.mark.slow
@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic abc", "Bearer wrong", "Bearer \xff"])
def test_without_a_good_key_every_path_answers_401(api: RunningApi, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    for path in ("/files", "/fine_tuning/jobs", "/models", "/fine_tuning/jobs/ftjob-x/events"):
        answer = httpx.get(f"{api.url}{path}", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_every_router_looks_at_bodies() -> None:
    sources = [path.read_text() for path in Path("service").rglob("*.py")]
    made = "".join(sources).count("APIRouter(")
    assert made >= 12
    assert "".join(sources).count("route_class=CheckedRoute") == made


def test_a_path_is_one_path(client: httpx.Client) -> None:
    """A redirect would name a host and a scheme that the client may not reach, or should not send its key to."""
    answer = client.get("/models/", headers={"Host": "elsewhere.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
    assert client.put("/files").headers["allow"] == "GET, POST"
    assert client.put("/models/ft:a:b::c").headers["allow"] == "DELETE, GET"


@pytest.mark.parametrize(
    "path", ["evals", "completions", "responses", "embeddings", "batches", "vector_stores", "moderations"]
)
def test_unknown_urls_are_a_404_of_openais_form(api: RunningApi, path: str) -> None:
    with (
        OpenAI(base_url=api.url, api_key=api.key("official"), max_retries=0) as client,
        pytest.raises(NotFoundError, match=f"Unknown request URL: POST /v1/{path}.") as caught,
    ):
        client.post(f"/{path}", cast_to=object, body={"model": "tiny"})
    assert caught.value.code == "unknown_url"


def test_an_answer_names_a_few_of_many_problems(client: httpx.Client) -> None:
    body = {f"{n}{'键' * 300}": n for n in range(800)}
    answer = client.post("/fine_tuning/jobs", json=body)
    assert answer.status_code == 400
    assert "and 792 more" in answer.text  # the two that are missing are problems, too
    assert len(answer.text) < 5000


def test_the_headers_of_openais_clients_change_nothing(api: RunningApi) -> None:
    key = api.key("official")
    with OpenAI(base_url=api.url, api_key=key, organization="org-elsewhere", project="proj_other") as client:
        file = client.files.create(file=("训练.jsonl", GOOD_JSONL), purpose="fine-tune")
        assert client.files.delete(file.id).deleted


def test_every_answer_has_a_request_id(client: httpx.Client) -> None:
    assert client.get("/models", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    unsafe = client.get("/nope", headers={"x-request-id": "a b"})
    assert unsafe.headers["x-request-id"].startswith("req_")
    assert unsafe.json()["error"]["code"] == "unknown_url"
    assert client.put("/models").status_code == 405


def test_an_unexpected_error_is_answered_without_its_details(
    api: RunningApi, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    named: list[str] = []
    caplog.handler.addFilter(lambda _: named.append(REQUEST_ID.get()) or True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.models.repository.all_of", lambda *_: 1 / 0)
        answer = client.get("/models")
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert "ZeroDivision" not in answer.text
    assert answer.headers["x-request-id"] in named, "the log's line does not know its request"


def test_openais_client_uploads_creates_and_follows(api: RunningApi) -> None:
    with OpenAI(base_url=api.url, api_key=api.key("official"), _strict_response_validation=True) as client:
        file = client.files.create(file=("train.jsonl", GOOD_JSONL), purpose="fine-tune")
        assert client.files.wait_for_processing(file.id).status == "processed"
        assert client.files.content(file.id).content == GOOD_JSONL
        job = client.fine_tuning.jobs.create(
            model="tiny",
            training_file=file.id,
            method={
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": 1}},
                "dpo": {"hyperparameters": {"beta": 0.1}},
            },
            metadata={"team": "客服"},
        )
        assert job.status == "validating_files"
        assert client.fine_tuning.jobs.retrieve(job.id).hyperparameters.n_epochs == 1
        assert [listed.id for listed in client.fine_tuning.jobs.list(limit=1)] == [job.id]
        events = list(client.fine_tuning.jobs.list_events(job.id, limit=1))
        assert [event.message for event in events][-1] == f"Created fine-tuning job: {job.id}"
        assert len(events) == 2
        assert list(client.fine_tuning.jobs.checkpoints.list(job.id)) == []
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.files.delete(file.id).deleted
        with pytest.raises(NotFoundError, match="No such File object"):
            client.files.retrieve(file.id)
    with OpenAI(base_url=api.url, api_key="wrong") as stranger, pytest.raises(AuthenticationError):
        stranger.models.list()


@pytest.mark.slow
def test_the_api_never_loads_torch() -> None:
    program = (
        "import sys; import service.api.app, service.controller.main, service.worker.main, service.__main__; "
        "print(sorted({'torch', 'transformers', 'trl', 'peft', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
