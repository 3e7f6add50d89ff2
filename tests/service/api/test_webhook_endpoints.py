from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from typing import Any

import httpx
import openai
import pytest

from burnish import Burnish, NotFoundError
from service.webhooks import service
from service.webhooks.message import EVENT_TYPES
from service.webhooks.sender import WebhookSender
from tests.fixtures.service import RunningApi, make_context, run_api, upload
from tests.service.webhooks.conftest import Answer, Receiver, receiver

__all__ = ["receiver"]

HOOKS = "/webhook_endpoints"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi, None, None]:
    """An API whose operator trusts loopback and one name."""
    context = make_context(
        tmp_path_factory.mktemp("api"), webhook_allowed_networks="127.0.0.0/8,::1/128,localhost,hooks.test"
    )
    with run_api(context) as running:
        yield running


@pytest.fixture(scope="module")
def strict_api(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi, None, None]:
    """An API whose operator trusts nothing."""
    with run_api(make_context(tmp_path_factory.mktemp("strict"))) as running:
        yield running


def body(url: str = "http://127.0.0.1:9/hook", **more: Any) -> dict[str, Any]:
    return {"name": "财务", "url": url, "event_types": list(EVENT_TYPES), **more}


def create(client: httpx.Client, url: str = "http://127.0.0.1:9/hook", **more: Any) -> dict[str, Any]:
    answer = client.post(HOOKS, json=body(url, **more))
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    return error


def deliver(api: RunningApi) -> None:
    async def run() -> None:
        sender = WebhookSender(api.context, None)
        while await sender.start_due_deliveries():
            await sender.wait_for_deliveries()
        await sender.close()

    asyncio.run(run())


def end_job(client: httpx.Client) -> str:
    """Create a job and cancel it, by the API alone."""
    file_id = upload(client).json()["id"]
    job = client.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": file_id}).json()
    assert client.post(f"/fine_tuning/jobs/{job['id']}/cancel").json()["status"] == "cancelled"
    return job["id"]


def test_an_endpoint_from_creation_to_deletion(client: httpx.Client) -> None:
    made = create(client)
    secret = made.pop("signing_secret")
    assert secret.startswith("whsec_")
    assert made["id"].startswith("whe_")
    assert made == {
        "id": made["id"],
        "object": "webhook_endpoint",
        "name": "财务",
        "url": "http://127.0.0.1:9/hook",
        "event_types": list(EVENT_TYPES),
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
        "signing_secret_hint": secret[:10] + "…",
        "enabled": True,
        "disabled_at": None,
        "disabled_reason": None,
        "failing_since": None,
    }
    path = f"{HOOKS}/{made['id']}"
    assert client.get(path).json() == made
    changed = client.post(path, json={"name": " 法务 ", "event_types": [EVENT_TYPES[0], EVENT_TYPES[0]]}).json()
    assert (changed["name"], changed["event_types"], changed["url"]) == ("法务", [EVENT_TYPES[0]], made["url"])
    assert "signing_secret" not in changed
    assert client.post(path, json={}).json() == changed
    assert client.delete(path).json() == {"id": made["id"], "object": "webhook_endpoint.deleted", "deleted": True}
    for answer in (client.get(path), client.delete(path), client.post(path, json={})):
        assert refused(answer, 404)["message"] == f"No such webhook endpoint: {made['id']}"


def test_event_types(client: httpx.Client) -> None:
    assert client.get("/webhook_event_types").json() == {"object": "list", "data": list(EVENT_TYPES)}


def test_lists_are_pages(client: httpx.Client) -> None:
    ids = [create(client)["id"] for _ in range(5)]
    first = client.get(HOOKS, params={"limit": 2}).json()
    assert [item["id"] for item in first["data"]] == ids[:2:-1]
    assert (first["has_more"], first["first_id"], first["last_id"]) == (True, ids[4], ids[3])
    rest = client.get(HOOKS, params={"after": ids[3], "limit": 10}).json()
    assert ([item["id"] for item in rest["data"]], rest["has_more"]) == (ids[2::-1], False)
    assert client.get(HOOKS, params={"order": "asc", "limit": 1}).json()["data"][0]["id"] == ids[0]
    assert refused(client.get(HOOKS, params={"after": "whe_none"}))["param"] == "after"
    assert "signing_secret" not in json.dumps(first).replace("signing_secret_hint", "")


def test_another_project_sees_nothing(client: httpx.Client, stranger: httpx.Client) -> None:
    endpoint_id = create(client)["id"]
    path = f"{HOOKS}/{endpoint_id}"
    assert endpoint_id not in {item["id"] for item in stranger.get(HOOKS).json()["data"]}
    for answer in (
        stranger.get(path),
        stranger.post(path, json={"name": "x"}),
        stranger.delete(path),
        stranger.post(f"{path}/rotate_secret", json={}),
        stranger.post(f"{path}/test", json={"event_type": EVENT_TYPES[0]}),
        stranger.get(f"{path}/deliveries"),
        stranger.post(f"{path}/replay", json={"from": 0, "to": 1}),
    ):
        assert refused(answer, 404)["code"] == "not_found"
    assert client.get(path).json()["name"] == "财务"


def test_without_a_key_nothing_is_said(api: RunningApi) -> None:
    with httpx.Client(base_url=api.url) as nobody:
        assert refused(nobody.get("/webhook_event_types"), 401)
        assert refused(nobody.post(HOOKS, json=body()), 401)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "param", "sentence"),
    [
        ({"url": "ftp://127.0.0.1/"}, "url", "is not the address of a receiver"),
        ({"url": "/hook"}, "url", "is not the address of a receiver"),
        ({"url": "http://127.0.0.1:99999/"}, "url", "is not the address of a receiver"),
        ({"url": "http://u:p@127.0.0.1/"}, "url", "holds a user or a password"),
        ({"url": "http://127.0.0.1/" + "x" * 2048}, "url", "at most 2048 characters"),
        ({"url": "http://" + "a" * 64 + ".example/"}, "url", ""),
        ({"event_types": []}, "event_types", "at least 1"),
        ({"event_types": ["batch.completed"]}, "event_types", "'batch.completed' is not an event of this service"),
        ({"name": "  "}, "name", "at least 1 character"),
        ({"name": "a\0b"}, "name", "NUL"),
        ({"secret": "mine"}, "secret", "unknown argument"),
    ],
)
def test_wrong_creations_are_sentences(client: httpx.Client, wrong: dict[str, Any], param: str, sentence: str) -> None:
    error = refused(client.post(HOOKS, json=body() | wrong))
    assert error["param"] == param
    assert sentence in error["message"]
    assert client.get(HOOKS).json()["data"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "localhost",
        "10.0.0.1",
        "169.254.7.7",
        "0.0.0.0",
        "224.0.0.1",
        "[::1]",
        "[::]",
        "[fd00::1]",
        "[::ffff:127.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
        "[64:ff9b::7f00:1]",
    ],
)
def test_addresses_inside_are_refused_at_creation_and_update(strict_api: RunningApi, host: str) -> None:
    with strict_api.client() as client:
        error = refused(client.post(HOOKS, json=body(f"http://{host}/")))
        assert error["param"] == "url"
        assert "not public" in error["message"]
        assert error["message"].endswith("BURNISH_WEBHOOK_ALLOWED_NETWORKS.")
        good = create(client, "https://8.8.8.8/")
        assert (
            "not public" in refused(client.post(f"{HOOKS}/{good['id']}", json={"url": f"https://{host}/"}))["message"]
        )
        assert client.get(f"{HOOKS}/{good['id']}").json()["url"] == "https://8.8.8.8/"


@pytest.mark.parametrize("host", ["168.63.129.16", "169.254.169.254", "100.100.100.200", "[::ffff:a83f:8110]"])
def test_what_a_cloud_offers_to_its_machines_is_refused(strict_api: RunningApi, host: str) -> None:
    with strict_api.client() as client:
        error = refused(client.post(HOOKS, json=body(f"http://{host}/")))
        assert error["param"] == "url"
        assert "not public, whatever the operator allows" in error["message"]


def test_there_is_a_most(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_MOST_ENDPOINTS", 1)
    create(client)
    assert "delete one" in refused(client.post(HOOKS, json=body()), 409)["message"]


def test_deliveries_and_replay(api: RunningApi, client: httpx.Client, receiver: Receiver) -> None:
    made = create(client, receiver.url)
    path = f"{HOOKS}/{made['id']}"
    receiver.answers = [Answer(500)]
    job_id = end_job(client)
    deliver(api)
    page = client.get(f"{path}/deliveries").json()
    (first,) = page["data"]
    assert (page["object"], page["has_more"]) == ("list", False)
    assert first == {
        "id": first["id"],
        "object": "webhook_endpoint.delivery",
        "webhook_endpoint_id": made["id"],
        "event_id": receiver.received[0].headers["webhook-id"],
        "event_type": "fine_tuning.job.cancelled",
        "url": receiver.url,
        "created_at": first["created_at"],
        "status_code": 500,
        "success": False,
        "error": "answered 500",
        "duration_ms": first["duration_ms"],
    }
    replayed = client.post(f"{path}/replay", json={"event_ids": [first["event_id"]]}).json()
    assert replayed == {
        "object": "webhook_endpoint.replay",
        "webhook_endpoint_id": made["id"],
        "event_ids": [first["event_id"]],
    }
    deliver(api)
    assert client.post(f"{path}/replay", json={"from": 0, "to": 1e11}).json()["event_ids"] == [first["event_id"]]
    deliver(api)
    newest = client.get(f"{path}/deliveries", params={"limit": 1}).json()
    assert newest["has_more"] is True
    assert newest["data"][0]["success"] is True
    older = client.get(f"{path}/deliveries", params={"after": newest["data"][0]["id"]}).json()
    assert [item["status_code"] for item in older["data"]] == [204, 500]
    assert refused(client.get(f"{path}/deliveries", params={"after": "whatt_none"}))["param"] == "after"
    with openai.OpenAI(api_key="k", webhook_secret=made["signing_secret"]) as official:
        for request in receiver.received:
            assert official.webhooks.unwrap(request.body, request.headers).data.id == job_id


@pytest.mark.parametrize(
    "wrong",
    [{}, {"from": 1}, {"to": 1}, {"event_ids": []}, {"event_ids": ["evt_a"], "from": 1, "to": 2}, {"from": 2, "to": 2}],
)
def test_wrong_replays_are_sentences(client: httpx.Client, wrong: dict[str, Any]) -> None:
    endpoint_id = create(client)["id"]
    assert refused(client.post(f"{HOOKS}/{endpoint_id}/replay", json=wrong))["message"].endswith(".")


def test_replay_of_an_unknown_event(client: httpx.Client) -> None:
    endpoint_id = create(client)["id"]
    answer = client.post(f"{HOOKS}/{endpoint_id}/replay", json={"event_ids": ["evt_none"]})
    assert refused(answer, 404)["message"].startswith("No such event: evt_none.")


def test_too_many_events_at_once(client: httpx.Client, monkeypatch: pytest.MonkeyPatch, api: RunningApi) -> None:
    monkeypatch.setattr(service, "_MOST_REPLAYED", 1)
    end_job(client)
    end_job(client)
    deliver(api)
    endpoint_id = create(client)["id"]
    error = refused(client.post(f"{HOOKS}/{endpoint_id}/replay", json={"from": 0, "to": 1e11}))
    assert "shorter span" in error["message"]


def test_a_test_reaches_the_receiver_and_is_logged(client: httpx.Client, receiver: Receiver) -> None:
    made = create(client, receiver.url)
    path = f"{HOOKS}/{made['id']}"
    receiver.answers = [Answer(204), Answer(410), Answer(302, {"Location": "/elsewhere"})]
    for status in (204, 410, 302):
        answer = client.post(f"{path}/test", json={"event_type": EVENT_TYPES[0]})
        assert answer.json() == {
            "object": "webhook_endpoint.test",
            "webhook_endpoint_id": made["id"],
            "event_type": EVENT_TYPES[0],
            "status_code": status,
            "success": True,
        }
    assert len(receiver.received) == 3
    with openai.OpenAI(api_key="k", webhook_secret=made["signing_secret"]) as official:
        event = official.webhooks.unwrap(receiver.received[0].body, receiver.received[0].headers)
    assert event.type == EVENT_TYPES[0]
    logged = client.get(f"{path}/deliveries").json()["data"]
    assert [item["status_code"] for item in logged] == [302, 410, 204]
    assert client.get(path).json()["enabled"] is True
    assert refused(client.post(f"{path}/test", json={"event_type": "x"}))["param"] == "event_type"


def test_a_test_without_an_answer_is_a_sentence(client: httpx.Client) -> None:
    made = create(client, "http://127.0.0.1:9/nobody")
    error = refused(client.post(f"{HOOKS}/{made['id']}/test", json={"event_type": EVENT_TYPES[0]}))
    assert error["code"] == "webhook_unreachable"
    assert "http://127.0.0.1:9/nobody did not answer" in error["message"]
    (logged,) = client.get(f"{HOOKS}/{made['id']}/deliveries").json()["data"]
    assert logged["status_code"] is None


def test_receivers_that_hang_hold_up_the_tests_of_their_own_project_alone(
    api: RunningApi, client: httpx.Client, stranger: httpx.Client, receiver: Receiver
) -> None:
    """Of sixteen at once four are under way and eight wait; the rest is refused, and another project's is made."""
    with socket.create_server(("127.0.0.1", 0)) as deaf, ThreadPoolExecutor(16) as threads:
        path = f"{HOOKS}/{create(client, f'http://127.0.0.1:{deaf.getsockname()[1]}/')['id']}/test"
        asked = [threads.submit(client.post, path, json={"event_type": EVENT_TYPES[0]}) for _ in range(16)]
        early = [future.result() for future in islice(as_completed(asked, timeout=10), 4)]
        assert {answer.status_code for answer in early} == {429}
        assert early[0].headers["retry-after"] == "15"
        assert "tests of webhook endpoints" in early[0].json()["error"]["message"]
        theirs = f"{HOOKS}/{create(stranger, receiver.url)['id']}/test"
        assert stranger.post(theirs, json={"event_type": EVENT_TYPES[0]}).status_code == 200
        deaf.close()  # ends the connections, so that nobody waits for the time limit
        assert sum(future.result().status_code == 429 for future in asked) == 4


def test_the_official_client(api: RunningApi, receiver: Receiver) -> None:
    with openai.OpenAI(
        base_url=api.url, api_key=api.key("official"), max_retries=0, _strict_response_validation=True
    ) as official:
        hooks = official.webhooks
        assert hooks.event_types.list().data == list(EVENT_TYPES)
        made = hooks.create(name="a", url=receiver.url, event_types=["fine_tuning.job.cancelled"])
        assert hooks.retrieve(made.id).signing_secret_hint == made.signing_secret_hint
        assert hooks.update(made.id, name="b").name == "b"
        more = [hooks.create(name="c", url=receiver.url, event_types=["fine_tuning.job.failed"]).id for _ in range(2)]
        assert [item.id for item in hooks.list(limit=1)] == [*reversed(more), made.id]
        rotated = hooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
        assert rotated.signing_secret != made.signing_secret
        assert hooks.rotate_secret(more[0]).signing_secret.startswith("whsec_")
        tested = hooks.test(made.id, event_type="fine_tuning.job.failed")
        assert (tested.success, tested.status_code, tested.webhook_endpoint_id) == (True, 204, made.id)
        request = receiver.received[0]
        for secret in (made.signing_secret, rotated.signing_secret):
            assert hooks.unwrap(request.body, request.headers, secret=secret).type == "fine_tuning.job.failed"
        with api.client("official") as client:
            job_id = end_job(client)
        deliver(api)
        event = hooks.unwrap(receiver.received[1].body, receiver.received[1].headers, secret=rotated.signing_secret)
        assert (event.type, event.data.id) == ("fine_tuning.job.cancelled", job_id)
        assert len(receiver.received) == 2
        assert hooks.delete(made.id).deleted
        with pytest.raises(openai.NotFoundError, match="No such webhook endpoint"):
            hooks.retrieve(made.id)


def test_burnishs_own_client(api: RunningApi, receiver: Receiver) -> None:
    with Burnish(base_url=api.url, api_key=api.key("own"), max_retries=0) as own:
        types = own.webhooks.event_types()
        hooks = own.webhooks.endpoints
        made = hooks.create(name="a", url=receiver.url, event_types=types)
        assert made.signing_secret
        assert hooks.test(made.id, event_type=types[0]).status_code == 204
        with api.client("own") as client:
            job_id = end_job(client)
        deliver(api)
        told = own.webhooks.unwrap(receiver.received[1].body, receiver.received[1].headers, made.signing_secret)
        assert told.data == {"id": job_id}
        assert hooks.replay(made.id, begin=0, end=1e11).event_ids == [told.id]
        deliver(api)
        assert [item.event_id for item in hooks.deliveries(made.id, limit=1)][:2] == [told.id, told.id]
        rotated = hooks.rotate_secret(made.id)
        assert rotated.signing_secret not in (None, made.signing_secret)
        assert hooks.update(made.id, name="b").name == "b"
        assert [item.id for item in hooks.list()] == [made.id]
        with pytest.raises(NotFoundError):
            hooks.replay(made.id, event_ids=["evt_none"])
        assert hooks.delete(made.id).deleted
