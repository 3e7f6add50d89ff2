"""Extensions of a creation: lora, priority, timeout, budget, resources."""

from __future__ import annotations

from typing import Any

import httpx
import pytest


def create(client: httpx.Client, file_id: str, **more: Any) -> httpx.Response:
    return client.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": file_id, **more})


def test_they_are_on_the_job(client: httpx.Client, file_id: str) -> None:
    asked: dict[str, Any] = {
        "timeout": 3600,
        "budget": {"max_tokens": 10**6, "max_gpu_minutes": 30},
        "resources": {"gpu_memory_gb": 24, "labels": ["zone=eu"]},
        "lora": {"rank": 8, "alpha": 16},
    }
    made = create(client, file_id, priority="high", **asked)
    assert made.status_code == 200, made.text
    job = client.get(f"/fine_tuning/jobs/{made.json()['id']}").json()
    assert job == made.json() | {"queue": job["queue"]}
    assert (job["priority"], job["timeout"]) == (10, 3600)
    assert job["budget"] == {"max_steps": None, "max_tokens": 10**6, "max_gpu_minutes": 30}
    assert job["resources"] == {"gpus": None, "gpu_memory_gb": 24, "labels": ["zone=eu"]}
    assert (job["lora"]["rank"], job["lora"]["alpha"], job["lora"]["dropout"]) == (8, 16, 0)
    assert job["method"]["supervised"]["hyperparameters"]["lora"] == job["lora"]
    assert (job["queue"]["reason"], job["ended_by"], job["running_seconds"]) == ("validating", None, 0)


def test_without_them_a_job_is_as_ever(client: httpx.Client, file_id: str) -> None:
    job = create(client, file_id).json()
    assert (job["priority"], job["timeout"], job["budget"], job["resources"]) == (0, None, None, None)
    assert job["lora"] == "auto"


def test_all_weights_have_no_adapter(client: httpx.Client) -> None:
    text = client.post("/files", files={"file": ("t.txt", "文字 text".encode())}, data={"purpose": "fine-tune"})
    method = {"type": "pretraining", "pretraining": {"hyperparameters": {"weights": "full"}}}
    job = create(client, text.json()["id"], method=method).json()
    assert job["lora"] is None
    refused = create(client, text.json()["id"], method=method, lora={"rank": 4})
    assert refused.status_code == 400
    assert "all weights are trained" in refused.json()["error"]["message"]


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "lora twice": (
        {"lora": {"rank": 4}, "method": {"type": "dpo", "dpo": {"hyperparameters": {"lora": {"rank": 4}}}}},
        "lora",
        "given twice, here and as method.dpo.hyperparameters.lora",
    ),
    "lora twice, the old way": ({"lora": {}, "hyperparameters": {"lora": "auto"}}, "lora", "as hyperparameters.lora"),
    "rank": ({"lora": {"rank": 0}}, "lora.rank", "must be at least 1"),
    "unknown": ({"lora": {"r": 4}}, "lora.r", "unknown argument"),
    "text": ({"lora": {"rank": "8"}}, "lora.rank", "a whole number"),
    "a word": ({"priority": "urgent"}, "priority", "must be low, normal, high, or a number from -100 to 100"),
    "too high": ({"priority": 101}, "priority", "100"),
    "a truth": ({"priority": True}, "priority", "a whole number"),
    "no time": ({"timeout": 0}, "timeout", "must be at least 1"),
    "a float": ({"timeout": 1.5}, "timeout", "a whole number"),
    "no limit": ({"budget": {}}, "budget", "needs max_steps, max_tokens or max_gpu_minutes"),
    "all null": ({"budget": {"max_steps": None}}, "budget", "needs max_steps"),
    "no steps": ({"budget": {"max_steps": 0}}, "budget.max_steps", "must be at least 1"),
    "huge": ({"budget": {"max_tokens": 10**30}}, "budget.max_tokens", "must be at most"),
    "two GPUs": ({"resources": {"gpus": 2}}, "resources.gpus", "must be at most 1"),
    "memory of none": ({"resources": {"gpus": 0, "gpu_memory_gb": 8}}, "resources", "leave one of them out"),
    "a label": ({"resources": {"labels": ["a b"]}}, "resources.labels.0", "pattern"),
    "a quantity": ({"resources": {"quantization": "4bit"}}, "resources.quantization", "unknown argument"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_refused_by_name(client: httpx.Client, file_id: str, case: str) -> None:
    more, param, sentence = BAD[case]
    answer = create(client, file_id, **more)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert sentence in error["message"]
    assert client.get("/fine_tuning/jobs").json()["data"] == []


def test_the_list_says_why_jobs_wait(client: httpx.Client, file_id: str) -> None:
    job_id = create(client, file_id).json()["id"]
    client.post(f"/fine_tuning/jobs/{job_id}/pause")
    listed = client.get("/fine_tuning/jobs").json()["data"][0]
    assert listed["queue"] is not None
    cancelled = client.post(f"/fine_tuning/jobs/{job_id}/cancel").json()
    assert cancelled["queue"] is None
