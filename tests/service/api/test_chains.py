"""Jobs that start from other jobs, as the API takes them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from service.jobs import lifecycle, results_repository
from service.jobs.lifecycle import JobFailureReason, PublishedFile
from service.jobs.methods import load_method
from tests.fixtures.service import RunningApi

SHAPE = {"layers": 1, "heads": 2, "width": 32, "context": 32}
PPO_REWARD = "method.ppo.hyperparameters.reward.model"


def method(kind: str, **hyperparameters: Any) -> dict[str, Any]:
    return {"type": kind, kind: {"hyperparameters": hyperparameters}}


def create(client: httpx.Client, file_id: str, model: str, **body: Any) -> httpx.Response:
    return client.post("/fine_tuning/jobs", json={"model": model, "training_file": file_id, **body})


def created(client: httpx.Client, file_id: str, model: str, **body: Any) -> dict[str, Any]:
    answer = create(client, file_id, model, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def finish(api: RunningApi, job_id: str, *, checkpoint: int | None = None) -> str:
    """Let the job succeed as a worker would; return its model's name."""
    with api.context.db.write() as session:
        lifecycle.queue_up(session, job_id)
        job = lifecycle.start_job(session, job_id, owner="w", lease_seconds=60)
        assert job is not None
        if checkpoint is not None:
            blobs = {"blob_prefix": f"jobs/{job_id}/attempt-1/checkpoints/step-{checkpoint}", "manifest_sha256": "0"}
            results_repository.add_checkpoint(session, job_id, step=checkpoint, metrics={}, **blobs)
        return lifecycle.complete_job(
            session,
            job,
            token=job.lease_token,
            trained_tokens=1,
            kind=load_method(job.method).hyperparameters.result_kind,
            blob_prefix=f"jobs/{job_id}/attempt-1/output/adapter",
            manifest_sha256="0" * 64,
            result_csv=PublishedFile("csv", "x.csv", "text/csv", "k", 1, "0" * 64),
            artifacts=[],
        )


def end(api: RunningApi, job_id: str) -> None:
    with api.context.db.write() as session:
        lifecycle.fail_job(session, job_id, JobFailureReason("boom", "it broke"))


def test_a_job_of_the_catalogs_base_waits_for_nothing(client: httpx.Client, file_id: str) -> None:
    job = created(client, file_id, "tiny")
    assert (job["base_model"], job["lineage"], job["waits_for"]) == ("tiny", [], [])


def test_a_job_waits_for_the_job_that_it_starts_from(client: httpx.Client, file_id: str) -> None:
    first = created(client, file_id, "tiny", validation_file=file_id)
    second = created(client, file_id, first["id"], method=method("dpo"))
    assert second["waits_for"] == [first["id"]]
    assert (second["model"], second["base_model"]) == (first["id"], "tiny")
    (entry,) = second["lineage"]
    assert (entry["job_id"], entry["method"]) == (first["id"], "supervised")
    assert entry["model"].startswith("ft:tiny:")
    assert entry["training_sha256"] == entry["validation_sha256"]
    assert len(entry["training_sha256"]) == 64
    third = created(client, file_id, second["id"], method=method("supervised"))
    assert third["waits_for"] == [second["id"]]
    assert [parent["job_id"] for parent in third["lineage"]] == [first["id"], second["id"]]


def test_a_finished_model_and_its_checkpoint_are_starts(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    parent = created(client, file_id, "tiny", suffix="客服".encode().hex())
    name = finish(api, parent["id"], checkpoint=2)
    for model in (name, f"{name}:ckpt-step-2", parent["id"]):
        job = created(client, file_id, model)
        assert (job["waits_for"], job["base_model"]) == ([], "tiny")
        assert job["lineage"][0]["model"] == (name if model == parent["id"] else model)
    listed = client.get(f"/fine_tuning/jobs/{parent['id']}/checkpoints").json()["data"]
    assert listed[0]["fine_tuned_model_checkpoint"] == f"{name}:ckpt-step-2"
    missing = create(client, file_id, f"{name}:ckpt-step-7")
    assert missing.status_code == 400
    assert "no checkpoint at step 7; its checkpoints are at: 2" in missing.json()["error"]["message"]


def test_ppo_names_a_reward_job(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    policy = created(client, file_id, "tiny")
    reward = created(client, file_id, "tiny", method=method("reward"))
    asked = method("ppo", reward={"model": reward["id"]})
    job = created(client, file_id, policy["id"], method=asked)
    assert job["waits_for"] == [policy["id"], reward["id"]]
    name = finish(api, reward["id"])
    again = created(client, file_id, policy["id"], method=method("ppo", reward={"model": name}))
    assert again["waits_for"] == [policy["id"]]


def test_a_model_from_scratch_is_a_base(client: httpx.Client, file_id: str) -> None:
    asked = method("pretraining", architecture=SHAPE, tokenizer="byte")
    first = created(client, file_id, "from-scratch", method=asked)
    assert first["base_model"] == "from-scratch"
    second = created(client, file_id, first["id"])
    assert second["base_model"] == second["lineage"][0]["model"]
    assert second["base_model"].startswith("ft:from-scratch:")
    third = created(client, file_id, second["id"])
    assert third["base_model"] == second["base_model"]
    answer = client.get(f"/fine_tuning/jobs/{first['id']}/adapter")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_adapter")
    assert client.get(f"/fine_tuning/jobs/{first['id']}/model").json()["error"]["code"] == "not_ready"
    assert client.get(f"/fine_tuning/jobs/{second['id']}/model").json()["error"]["code"] == "no_model"


def test_a_parent_without_a_result_is_refused(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    failed = created(client, file_id, "tiny")["id"]
    end(api, failed)
    cancelled = created(client, file_id, "tiny")["id"]
    client.post(f"/fine_tuning/jobs/{cancelled}/cancel")
    for job_id, word in ((failed, "failed"), (cancelled, "cancelled")):
        error = create(client, file_id, job_id).json()["error"]
        assert (error["code"], error["param"]) == ("parent_failed", "model")
        assert word in error["message"]


def test_a_job_cannot_start_from_a_deleted_model(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    parent = created(client, file_id, "tiny")["id"]
    name = finish(api, parent)
    assert client.delete(f"/models/{name}").json()["deleted"] is True
    for model in (name, parent):
        answer = create(client, file_id, model)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_anothers_jobs_do_not_exist(
    api: RunningApi, client: httpx.Client, stranger: httpx.Client, file_id: str
) -> None:
    own = stranger.post("/files", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", ROW)}).json()["id"]
    parent = created(client, file_id, "tiny")["id"]
    name = finish(api, parent, checkpoint=1)
    for model in (parent, name, f"{name}:ckpt-step-1"):
        answer = create(stranger, own, model)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        refused = create(stranger, own, "tiny", method=method("ppo", reward={"model": model}))
        assert (refused.status_code, refused.json()["error"]["param"]) == (404, PPO_REWARD)


ROW = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'
_REWARD = "method.ppo.hyperparameters.reward"
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "from scratch without pretraining": ({"model": "from-scratch"}, "model", "pretraining with an architecture"),
    "from scratch without an architecture": (
        {"model": "from-scratch", "method": method("pretraining")},
        "model",
        "pretraining with an architecture",
    ),
    "from scratch with the base's tokenizer": (
        {"model": "from-scratch", "method": method("pretraining", architecture=SHAPE)},
        "method.pretraining.hyperparameters.tokenizer",
        "byte, char or bpe",
    ),
    "no such job": ({"model": "ftjob-nope"}, "model", "does not exist"),
    "no such model": ({"model": "ft:tiny:burnish::abcdefgh"}, "model", "does not exist"),
    "an odd checkpoint": ({"model": "ft:tiny:burnish::abcdefgh:ckpt-step-x"}, "model", "does not exist"),
    "a wildcard": ({"model": "ft:tiny:burnish::%"}, "model", "does not exist"),
    "a base as a reward": ({"method": method("ppo", reward={"model": "tiny"})}, PPO_REWARD, "is not a reward model"),
    "no such reward job": ({"method": method("ppo", reward={"model": "ftjob-x"})}, PPO_REWARD, "does not exist"),
    "a reward that is neither": ({"method": method("ppo", reward={})}, _REWARD, "the result of a reward job, or"),
    "a reward that is a text": ({"method": method("grpo", reward="x")}, "method.grpo.hyperparameters.reward", "or"),
    "an unknown function": ({"method": method("ppo", reward={"function": "x"})}, f"{_REWARD}.function", "lexicon"),
    "a wrong parameter": (
        {"method": method("ppo", reward={"function": "length", "parameters": {"target": 0}})},
        _REWARD,
        "parameters.target of the reward function length",
    ),
    "ppo without a reward": ({"method": method("ppo")}, "method.ppo.hyperparameters.reward", "required"),
    "beta of zero": ({"method": method("dpo", beta=0)}, "method.dpo.hyperparameters.beta", "greater than 0"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_a_wrong_start_is_refused_with_its_field(client: httpx.Client, file_id: str, name: str) -> None:
    changes, param, expected = BAD[name]
    answer = create(client, file_id, **{"model": "tiny", **changes})
    assert answer.status_code in (400, 404), answer.text
    error = answer.json()["error"]
    assert error["param"].startswith(param)
    assert expected in error["message"]
    assert client.get("/fine_tuning/jobs").json()["data"] == []


def test_a_result_of_the_wrong_kind_is_refused(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    plain, reward = (created(client, file_id, "tiny", method=method(kind))["id"] for kind in ("supervised", "reward"))
    wrong_start = create(client, file_id, reward)
    assert wrong_start.status_code == 400
    assert "is a reward model" in wrong_start.json()["error"]["message"]
    assert create(client, file_id, reward, method=method("reward")).status_code == 200
    wrong_reward = create(client, file_id, "tiny", method=method("ppo", reward={"model": plain}))
    assert wrong_reward.json()["error"]["param"] == PPO_REWARD
    assert "has no score head" in wrong_reward.json()["error"]["message"]
    new_model = method("pretraining", architecture=SHAPE)
    wrong_shape = create(client, file_id, plain, method=new_model)
    assert "starts from no adapter" in wrong_shape.json()["error"]["message"]
