"""`integrations` of a creation: OpenAI's shapes, kept on the job."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

JOBS = "/fine_tuning/jobs"
FULL = {"project": "客服 desk", "name": "第一次", "entity": "team-a", "tags": ["desk", "团队"]}


def wandb(**settings: Any) -> dict[str, Any]:
    return {"type": "wandb", "wandb": settings}


def create(client: httpx.Client, file_id: str, integrations: Any, **more: Any) -> httpx.Response:
    body = {"model": "tiny", "training_file": file_id, "integrations": integrations}
    return client.post(JOBS, json=body, **more)


def test_they_are_on_the_job_wherever_it_is_shown(client: httpx.Client, file_id: str) -> None:
    asked = [wandb(**FULL), wandb(project="second", tags=None)]
    shown = [wandb(**FULL), wandb(project="second", name=None, entity=None, tags=[])]
    made = create(client, file_id, asked)
    assert made.status_code == 200, made.text
    assert made.json()["integrations"] == shown
    job_id = made.json()["id"]
    assert client.get(f"{JOBS}/{job_id}").json()["integrations"] == shown
    assert client.get(JOBS).json()["data"][0]["integrations"] == shown
    assert client.post(f"{JOBS}/{job_id}/cancel").json()["integrations"] == shown


@pytest.mark.parametrize("none", [None, []])
def test_none_are_none(client: httpx.Client, file_id: str, none: Any) -> None:
    made = create(client, file_id, none)
    assert (made.status_code, made.json()["integrations"]) == (200, [])


def test_an_answer_that_is_given_again_has_them(client: httpx.Client, file_id: str) -> None:
    key = {"Idempotency-Key": "again"}
    first = create(client, file_id, [wandb(**FULL)], headers=key)
    assert create(client, file_id, [wandb(**FULL)], headers=key).json() == first.json()
    assert first.json()["integrations"] == [wandb(**FULL)]
    other = create(client, file_id, [wandb(**FULL | {"project": "other"})], headers=key)
    assert other.status_code == 409


def test_a_preview_takes_them_and_refuses_what_a_creation_refuses(client: httpx.Client, file_id: str) -> None:
    body = {"model": "tiny", "training_file": file_id, "integrations": [wandb(**FULL)]}
    taken = client.post(f"{JOBS}/preview", json=body)
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "no_worker")  # nothing else is wrong with it
    refused = client.post(f"{JOBS}/preview", json=body | {"integrations": [wandb()]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "integrations.0.wandb.project")


BAD: dict[str, tuple[Any, str, str]] = {
    "no list": (wandb(project="p"), "integrations", "a list"),
    "no object": (["wandb"], "integrations.0", "an object"),
    "null": ([None], "integrations.0", "an object"),
    "no type": ([{"wandb": {"project": "p"}}], "integrations.0.type", "required"),
    "another type": ([{"type": "mlflow", "wandb": {"project": "p"}}], "integrations.0.type", "'wandb'"),
    "no settings": ([{"type": "wandb"}], "integrations.0.wandb", "required"),
    "settings beside": ([{"type": "wandb", "project": "p"}], "integrations.0.wandb", "required"),
    "unknown": ([wandb(project="p", api_key="k")], "integrations.0.wandb.api_key", "unknown argument"),
    "unknown outside": ([wandb(project="p") | {"mode": 1}], "integrations.0.mode", "unknown argument"),
    "no project": ([wandb(name="n")], "integrations.0.wandb.project", "required"),
    "null project": ([wandb(project=None)], "integrations.0.wandb.project", "a string"),
    "a number": ([wandb(project=7)], "integrations.0.wandb.project", "a string"),
    "empty": ([wandb(project="")], "integrations.0.wandb.project", "at least 1 character"),
    "long": ([wandb(project="p" * 129)], "integrations.0.wandb.project", "at most 128 characters"),
    "a path": ([wandb(project="../p")], "integrations.0.wandb.project", "must have none of / \\ # ? % :"),
    "a line": ([wandb(project="p\nq")], "integrations.0.wandb.project", "no control character"),
    "spaces": ([wandb(project=" ")], "integrations.0.wandb.project", "no space at its ends"),
    "an entity": ([wandb(project="p", entity="a/b")], "integrations.0.wandb.entity", "must have none of /"),
    "a name": ([wandb(project="p", name="  ")], "integrations.0.wandb.name", "more than spaces"),
    "a long name": ([wandb(project="p", name="名" * 129)], "integrations.0.wandb.name", "at most 128 characters"),
    "a tag alone": ([wandb(project="p", tags="desk")], "integrations.0.wandb.tags", "a list"),
    "an empty tag": ([wandb(project="p", tags=["a", ""])], "integrations.0.wandb.tags.1", "at least 1 character"),
    "a long tag": ([wandb(project="p", tags=["t" * 65])], "integrations.0.wandb.tags.0", "at most 64 characters"),
    "a tag twice": ([wandb(project="p", tags=["团", "团"])], "integrations.0.wandb.tags", "the tag '团' twice"),
    "tags": ([wandb(project="p", tags=[str(n) for n in range(65)])], "integrations.0.wandb.tags", "at most 64"),
    "twice": ([wandb(project="p"), wandb(project="p", name="n")], "integrations", "the project 'p' twice"),
    "many": ([wandb(project=str(n)) for n in range(6)], "integrations", "at most 5"),
    "a half": ([wandb(project="p", tags=["\ud800"])], "integrations.0.wandb.tags.0", "surrogate"),
    "a NUL": ([wandb(project="p", name="a\0")], "integrations.0.wandb.name", "NUL"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_refused_by_name(client: httpx.Client, file_id: str, case: str) -> None:
    integrations, param, sentence = BAD[case]
    body = json.dumps({"model": "tiny", "training_file": file_id, "integrations": integrations})
    answer = client.post(JOBS, content=body, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), answer.text
    assert sentence in error["message"]
    assert client.get(JOBS).json()["data"] == []
