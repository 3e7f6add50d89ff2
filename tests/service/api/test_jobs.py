from __future__ import annotations

from typing import Any

import httpx
import pytest

from service.jobs import lifecycle, repository
from service.jobs.lifecycle import JobFailureReason
from tests.fixtures.service import RunningApi


def create(client: httpx.Client, file_id: str, **body: Any) -> httpx.Response:
    return client.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": file_id, **body})


def test_a_job_shows_openais_fields(client: httpx.Client, file_id: str) -> None:
    body = {"suffix": "my-desk", "seed": 7, "metadata": {"团队": "客服"}, "validation_file": file_id}
    job = create(client, file_id, **body).json()
    assert job["object"] == "fine_tuning.job"
    assert job["id"].startswith("ftjob-")
    assert (job["status"], job["phase"]) == ("validating_files", "validating")
    assert {name: job[name] for name in body} == body
    assert job["hyperparameters"] == {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert job["method"]["type"] == "supervised"
    assert job["fine_tuned_model"] is job["error"] is job["finished_at"] is job["trained_tokens"] is None
    assert job["result_files"] == job["integrations"] == []
    assert client.get(f"/fine_tuning/jobs/{job['id']}").json() == job


def test_requested_settings_are_echoed(client: httpx.Client, file_id: str) -> None:
    hyperparameters = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5, "lora": {"rank": 4, "alpha": 8}}
    method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}, "dpo": {"nonsense": True}}
    job = create(client, file_id, method=method).json()
    shown = job["method"]["supervised"]["hyperparameters"]
    assert shown["n_epochs"] == 2
    shape = {"rank": 4, "alpha": 8, "dropout": 0, "target_modules": "all-linear"}
    assert shown["lora"] == shape | {"use_dora": False, "use_rslora": False, "experts": False}
    assert job["hyperparameters"] == {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
    assert "dpo" not in job["method"]


def test_the_older_hyperparameters_work(client: httpx.Client, file_id: str) -> None:
    job = create(client, file_id, hyperparameters={"n_epochs": 3}).json()
    assert job["hyperparameters"]["n_epochs"] == 3


def hyper(**values: Any) -> dict[str, Any]:
    return {"method": {"type": "supervised", "supervised": {"hyperparameters": values}}}


_PLACE = "method.supervised.hyperparameters"


@pytest.mark.parametrize(
    ("suffix", "part"),
    [("custom model name", "custom-model-name"), (" a  b ", "a-b"), ("v2.1_x-y", "v2.1_x-y"), ("a -b", "a--b")],
)
def test_spaces_of_a_suffix_become_hyphens(client: httpx.Client, file_id: str, suffix: str, part: str) -> None:
    assert create(client, file_id, suffix=suffix).json()["suffix"] == part


@pytest.mark.parametrize("suffix", ["客服", "café", "مكتب", "-a", "a/b", "a:b", "a\tb", "   ", "a\u00a0b"])
def test_another_suffix_is_refused_with_an_example(client: httpx.Client, file_id: str, suffix: str) -> None:
    error = create(client, file_id, suffix=suffix).json()["error"]
    assert error["param"] == "suffix"
    assert "[A-Za-z0-9][A-Za-z0-9._-]*" in error["message"]
    assert "such as 'support-desk.v2'" in error["message"]


BAD_BODIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown base": ({"model": "gpt-9"}, "model", "Base models of this service: tiny"),
    "a path as a model": ({"model": "../../etc/passwd"}, "model", "does not exist here"),
    "a hub id as a model": ({"model": "org/model"}, "model", "does not exist here"),
    "no model": ({"model": None}, "model", "string"),
    "empty model": ({"model": ""}, "model", "at least 1"),
    "unknown file": ({"training_file": "file-nope"}, "training_file", "file-nope"),
    "a number as a file": ({"training_file": 7}, "training_file", "string"),
    "unknown validation file": ({"validation_file": "file-nope"}, "validation_file", "file-nope"),
    "unknown argument": ({"modle": "tiny"}, "modle", "unknown argument"),
    "seed too large": ({"seed": 2**31}, "seed", "2147483647"),
    "seed beyond 64 bits": ({"seed": 10**30}, "seed", "2147483647"),
    "negative seed": ({"seed": -1}, "seed", "at least 0"),
    "suffix too long": ({"suffix": "x" * 65}, "suffix", "64"),
    "suffix with a slash": ({"suffix": "a/b"}, "suffix", "letters"),
    "too much metadata": ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "16"),
    "metadata key too long": ({"metadata": {"k" * 65: "x"}}, "metadata", "64"),
    "metadata value too long": ({"metadata": {"k": "x" * 513}}, "metadata", "512"),
    "unknown method": ({"method": {"type": "magic"}}, "method.type", "supervised"),
    "no method type": ({"method": {}}, "method.type", "None"),
    "method is a list": ({"method": []}, "method", "an object"),
    "epochs zero": (hyper(n_epochs=0), f"{_PLACE}.n_epochs", "at least 1"),
    "epochs text": (hyper(n_epochs="many"), f"{_PLACE}.n_epochs", "auto"),
    "epochs a boolean": (hyper(n_epochs=True), f"{_PLACE}.n_epochs", "auto"),
    "epochs a number as text": (hyper(n_epochs="3"), f"{_PLACE}.n_epochs", "auto"),
    "batch too large": (hyper(batch_size=257), f"{_PLACE}.batch_size", "256"),
    "rate zero": (hyper(learning_rate_multiplier=0), f"{_PLACE}.learning_rate_multiplier", "greater"),
    "rank zero": (hyper(lora={"rank": 0}), f"{_PLACE}.lora.rank", "at least 1"),
    "unknown hyperparameter": (hyper(rank=4), f"{_PLACE}.rank", "not a hyperparameter"),
    "hyperparameters a list": (hyper() | {"hyperparameters": []}, "hyperparameters", "an object"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_wrong_job_is_refused_with_its_field(client: httpx.Client, file_id: str, name: str) -> None:
    changes, param, expected = BAD_BODIES[name]
    answer = create(client, file_id, **changes)
    assert answer.status_code in (400, 404), answer.text
    error = answer.json()["error"]
    assert error["param"].startswith(param)
    assert expected in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert client.get("/fine_tuning/jobs").json()["data"] == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"model": "tiny"}', b'{"a": NaN}'])
def test_a_body_that_is_not_a_job_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/fine_tuning/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_another_projects_file_and_job_do_not_exist(client: httpx.Client, stranger: httpx.Client, file_id: str) -> None:
    refused = create(stranger, file_id)
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "training_file")
    job_id = create(client, file_id).json()["id"]
    path = f"/fine_tuning/jobs/{job_id}"
    answers = [stranger.get(f"{path}{rest}") for rest in ("", "/events", "/checkpoints", "/adapter", "/report")]
    answers.append(stranger.get(f"{path}/events", params={"stream": "true"}))
    answers.append(stranger.post(f"{path}/cancel"))
    for answer in answers:
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == f"No such fine-tuning job: {job_id}"
    assert client.get(path).json()["status"] == "validating_files"


def test_jobs_are_pages_and_filtered_by_metadata(client: httpx.Client, file_id: str) -> None:
    ids = [create(client, file_id, metadata={"n": str(n % 2)}).json()["id"] for n in range(5)]
    page = client.get("/fine_tuning/jobs", params={"limit": 3}).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == (ids[:1:-1], True)
    rest = client.get("/fine_tuning/jobs", params={"after": ids[2]}).json()
    assert ([job["id"] for job in rest["data"]], rest["has_more"]) == (ids[1::-1], False)
    odd = client.get("/fine_tuning/jobs", params={"metadata[n]": "1"}).json()
    assert [job["id"] for job in odd["data"]] == [ids[3], ids[1]]
    bare = [create(client, file_id, metadata=metadata).json()["id"] for metadata in (None, {})]
    without = client.get("/fine_tuning/jobs", params={"metadata": "null"}).json()
    assert [job["id"] for job in without["data"]] == bare[::-1]
    both = {"metadata": "null", "metadata[n]": "1"}
    for wrong in (both, {"metadata": "x"}, {"metadata[n]": ["1", "2"]}, {"metadata.n": "1"}):
        refused = client.get("/fine_tuning/jobs", params=wrong)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "metadata")
    assert client.get("/fine_tuning/jobs", params={"after": "ftjob-nope"}).status_code == 400
    assert client.get("/fine_tuning/jobs", params={"limit": 0}).status_code == 400


def test_a_cancelled_job_stays_cancelled(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    job_id = create(client, file_id).json()["id"]
    cancelled = client.post(f"/fine_tuning/jobs/{job_id}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["finished_at"] is not None
    again = client.post(f"/fine_tuning/jobs/{job_id}/cancel")
    assert again.status_code == 409
    assert again.headers["x-should-retry"] == "false"
    with api.context.db.write() as session:
        assert lifecycle.queue_up(session, job_id) is False
        assert lifecycle.start_job(session, job_id, owner="w", lease_seconds=60) is None
    assert client.get(f"/fine_tuning/jobs/{job_id}").json()["status"] == "cancelled"


def test_events_come_newest_first_and_as_a_stream(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    job_id = create(client, file_id).json()["id"]
    with api.context.db.write() as session:
        repository.add_event(session, job_id, "第一步", kind="metrics", data={"step": 1}, once_key="step:1")
        repository.add_event(session, job_id, "again", once_key="step:1")
        lifecycle.fail_job(session, job_id, JobFailureReason("boom", "it broke"))
    page = client.get(f"/fine_tuning/jobs/{job_id}/events").json()["data"]
    messages = [event["message"] for event in page]
    assert messages == [
        "The job failed: it broke",
        "第一步",
        f"Validating training file: {file_id}",
        f"Created fine-tuning job: {job_id}",
    ]
    assert page[1]["data"] == {"step": 1}
    first = client.get(f"/fine_tuning/jobs/{job_id}/events", params={"limit": 1}).json()
    assert first["has_more"] is True
    stream = client.get(f"/fine_tuning/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
    assert stream.headers["content-type"].startswith("text/event-stream")
    blocks = stream.text.strip().split("\n\n")
    assert len(blocks) == 5
    assert blocks[2].startswith(f"id: {page[1]['id']}\nevent: fine_tuning.job.event\n")
    assert blocks[-1].startswith("event: done\n")
    assert '"status":"failed"' in blocks[-1]
    rest = client.get(
        f"/fine_tuning/jobs/{job_id}/events",
        headers={"Accept": "text/event-stream", "Last-Event-ID": page[1]["id"]},
    )
    assert rest.text.strip().split("\n\n") == blocks[3:]
    unknown = client.get(f"/fine_tuning/jobs/{job_id}/events", params={"stream": "true", "after": "ftevent-x"})
    assert unknown.status_code == 400


def test_results_of_an_unfinished_job_are_not_ready(client: httpx.Client, file_id: str) -> None:
    job_id = create(client, file_id).json()["id"]
    for what in ("adapter", "report"):
        answer = client.get(f"/fine_tuning/jobs/{job_id}/{what}")
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "not_ready"
        assert "validating_files" in answer.json()["error"]["message"]
    assert client.get(f"/fine_tuning/jobs/{job_id}/checkpoints").json() == {
        "object": "list",
        "data": [],
        "has_more": False,
    }


def test_an_endless_body_is_refused(client: httpx.Client) -> None:
    answer = client.post("/fine_tuning/jobs", json={"model": "x" * (2 << 20)})
    assert answer.status_code == 413
    assert "1048576 bytes" in answer.json()["error"]["message"]


def test_pause_and_resume(api: RunningApi, client: httpx.Client, stranger: httpx.Client, file_id: str) -> None:
    job_id = client.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": file_id}).json()["id"]
    path = f"/fine_tuning/jobs/{job_id}"
    early = client.post(f"{path}/resume")
    assert (early.status_code, early.headers["x-should-retry"]) == (409, "false")
    assert "not paused" in early.json()["error"]["message"]
    validating = client.post(f"{path}/pause").json()
    assert (validating["phase"], validating["pause_requested"]) == ("validating", True)
    with api.context.db.write() as session:
        lifecycle.queue_up(session, job_id)
    for _ in range(2):
        paused = client.post(f"{path}/pause")
        assert paused.status_code == 200
    assert (paused.json()["status"], paused.json()["phase"]) == ("queued", "paused")
    resumed = client.post(f"{path}/resume").json()
    assert (resumed["status"], resumed["phase"], resumed["pause_requested"]) == ("queued", "queued", False)
    assert stranger.post(f"{path}/pause").status_code == stranger.post(f"{path}/resume").status_code == 404
    client.post(f"{path}/cancel")
    for verb, done in (("pause", "paused"), ("resume", "resumed")):
        refused = client.post(f"{path}/{verb}")
        assert refused.status_code == 409
        assert refused.json()["error"]["message"].endswith(f"only a job that has not ended can be {done}.")
