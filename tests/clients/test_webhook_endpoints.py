from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

from burnish import BadRequestError, ConflictError, NotFoundError
from burnish.cli import main
from tests.clients.scripted import KEY, Answer, Driver, Server, a_delivery, a_page, an_endpoint, refusal
from tests.clients.test_cli import Run, run

UTC = timezone.utc  # noqa: UP017 - Python 3.10 knows no other name

__all__ = ["run"]

HOOKS = "/v1/webhook_endpoints"
HOOK = f"{HOOKS}/whe_1"
TYPES = ["fine_tuning.job.succeeded", "fine_tuning.job.failed"]
REPLAYED = {"object": "webhook_endpoint.replay", "webhook_endpoint_id": "whe_1", "event_ids": ["evt_1", "evt_2"]}
TESTED = {
    "object": "webhook_endpoint.test",
    "webhook_endpoint_id": "whe_1",
    "event_type": TYPES[0],
    "status_code": 410,
    "success": True,
}


def test_an_endpoints_life(driver: Driver, server: Server) -> None:
    server.on("POST", HOOKS, Answer(an_endpoint(signing_secret="whsec_secret")))
    made = driver.call(
        "webhooks.endpoints.create", name="财务", url="https://example.com/hook", event_types=tuple(TYPES)
    )
    assert server.seen[-1].json() == {"name": "财务", "url": "https://example.com/hook", "event_types": TYPES}
    assert (made.id, made.signing_secret, made.event_types) == ("whe_1", "whsec_secret", TYPES)
    assert "whsec_secret" not in repr(made)
    server.on("GET", HOOK, Answer(an_endpoint(enabled=False, disabled_at=5, disabled_reason="410")))
    found = driver.call("webhooks.endpoints.retrieve", "whe_1")
    assert (found.enabled, found.disabled_at, found.disabled_reason, found.signing_secret) == (False, 5, "410", None)
    server.on("POST", HOOK, Answer(an_endpoint(name="b")))
    assert driver.call("webhooks.endpoints.update", "whe_1", name="b", event_types=TYPES[:1]).name == "b"
    assert server.seen[-1].json() == {"name": "b", "event_types": TYPES[:1]}
    driver.call("webhooks.endpoints.update", "whe_1")
    assert server.seen[-1].json() == {}
    server.on("DELETE", HOOK, Answer({"id": "whe_1", "object": "webhook_endpoint.deleted", "deleted": True}))
    assert driver.call("webhooks.endpoints.delete", "whe_1").deleted


def test_lists_go_through_all_pages(driver: Driver, server: Server) -> None:
    server.on("GET", HOOKS, [Answer(a_page([an_endpoint(2)], has_more=True)), Answer(a_page([an_endpoint(1)]))])
    assert [item.id for item in driver.items("webhooks.endpoints.list", limit=1)] == ["whe_2", "whe_1"]
    assert server.seen[-1].query == {"limit": ["1"], "after": ["whe_2"]}
    failed = a_delivery(2, status_code=None, success=False, error="ConnectError")
    server.on("GET", f"{HOOK}/deliveries", [Answer(a_page([failed], has_more=True)), Answer(a_page([a_delivery()]))])
    first, second = driver.items("webhooks.endpoints.deliveries", "whe_1", order="desc")
    assert (first.event_id, first.status_code, first.success, first.error) == ("evt_2", None, False, "ConnectError")
    assert (second.event_type, second.duration_ms) == (TYPES[1], 12)
    assert server.seen[-1].query == {"order": ["desc"], "after": ["whatt_2"]}


def test_event_types(driver: Driver, server: Server) -> None:
    server.on("GET", "/v1/webhook_event_types", Answer({"object": "list", "data": TYPES}))
    assert driver.call("webhooks.event_types") == TYPES
    assert server.seen[-1].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("keep", [True, False])
def test_rotation(driver: Driver, server: Server, keep: bool) -> None:
    server.on("POST", f"{HOOK}/rotate_secret", Answer(an_endpoint(signing_secret="whsec_new")))
    made = driver.call("webhooks.endpoints.rotate_secret", "whe_1", keep_old_secret_active_for_24_hours=keep)
    assert made.signing_secret == "whsec_new"
    assert server.seen[-1].json() == {"keep_old_secret_active_for_24_hours": keep}


def test_a_test(driver: Driver, server: Server) -> None:
    server.on("POST", f"{HOOK}/test", Answer(TESTED))
    tested = driver.call("webhooks.endpoints.test", "whe_1", event_type=TYPES[0])
    assert (tested.status_code, tested.success) == (410, True)
    assert server.seen[-1].json() == {"event_type": TYPES[0]}
    server.on("POST", f"{HOOK}/test", refusal(400, code="webhook_unreachable"))
    with pytest.raises(BadRequestError):
        driver.call("webhooks.endpoints.test", "whe_1", event_type=TYPES[0])


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({"event_ids": ("evt_1", "evt_2")}, {"event_ids": ["evt_1", "evt_2"]}),
        ({"begin": 1, "end": 2.5}, {"from": 1, "to": 2.5}),
        ({"begin": datetime(1970, 1, 2, tzinfo=UTC), "end": 100000}, {"from": 86400, "to": 100000}),
    ],
)
def test_replay(driver: Driver, server: Server, arguments: dict[str, Any], sent: dict[str, Any]) -> None:
    server.on("POST", f"{HOOK}/replay", Answer(REPLAYED))
    assert driver.call("webhooks.endpoints.replay", "whe_1", **arguments).event_ids == ["evt_1", "evt_2"]
    assert server.seen[-1].json() == sent


def test_refusals_are_typed(driver: Driver, server: Server) -> None:
    server.on("GET", HOOK, refusal(404))
    server.on("POST", f"{HOOK}/replay", refusal(409, headers={"x-should-retry": "false"}))
    with pytest.raises(NotFoundError):
        driver.call("webhooks.endpoints.retrieve", "whe_1")
    with pytest.raises(ConflictError):
        driver.call("webhooks.endpoints.replay", "whe_1", event_ids=["evt_1"])


def test_the_commands_that_change(run: Run, server: Server) -> None:
    server.on("GET", "/v1/webhook_event_types", Answer({"object": "list", "data": TYPES}))
    server.on("POST", HOOKS, Answer(an_endpoint(signing_secret="whsec_secret")))
    create = ("webhooks", "create", "https://example.com/hook")
    assert run(*create) == (0, "whe_1\nSigning secret, shown only now: whsec_secret\n", "")
    url = "https://example.com/hook"
    assert server.seen[-1].json() == {"name": url, "url": url, "event_types": TYPES}
    out = run(*create, "--name", "财务", "--event", TYPES[1], "--json")[1]
    assert json.loads(out)["signing_secret"] == "whsec_secret"
    assert server.seen[-1].json() == {"name": "财务", "url": url, "event_types": TYPES[1:]}
    server.on("POST", f"{HOOK}/rotate_secret", Answer(an_endpoint(signing_secret="whsec_new")))
    assert "whsec_new" in run("webhooks", "rotate", "whe_1", "--keep-old")[1]
    assert server.seen[-1].json() == {"keep_old_secret_active_for_24_hours": True}
    server.on("POST", HOOK, Answer(an_endpoint()))
    assert run("webhooks", "enable", "whe_1") == (0, "whe_1 is enabled.\n", "")
    server.on("POST", f"{HOOK}/test", Answer(TESTED))
    assert run("webhooks", "test", "whe_1") == (0, "The receiver answered 410.\n", "")
    assert json.loads(run("webhooks", "test", "whe_1", "--event", TYPES[1], "--json")[1])["status_code"] == 410
    assert server.seen[-1].json() == {"event_type": TYPES[1]}
    server.on("DELETE", HOOK, Answer({"id": "whe_1", "object": "webhook_endpoint.deleted", "deleted": True}))
    assert run("webhooks", "delete", "whe_1") == (0, "Deleted whe_1.\n", "")


def test_the_commands_that_show(run: Run, server: Server) -> None:
    gone = an_endpoint(2, enabled=False, disabled_reason="it is gone")
    server.on("GET", HOOKS, Answer(a_page([gone, an_endpoint()])))
    status, out, _ = run("webhooks", "list")
    assert status == 0
    for text in ("whe_2", "whe_1", "财务", "https://example.com/hook", "enabled", "disabled: it is gone", TYPES[1]):
        assert text in out
    assert [item["id"] for item in json.loads(run("webhooks", "list", "--json", "--limit", "1")[1])] == ["whe_2"]
    failed = a_delivery(2, status_code=500, success=False, error="answered 500")
    server.on("GET", f"{HOOK}/deliveries", Answer(a_page([failed, a_delivery()])))
    out = run("webhooks", "deliveries", "whe_1")[1]
    for text in ("evt_2", "500", "answered 500", "evt_1", "204", "12"):
        assert text in out
    assert len(json.loads(run("webhooks", "deliveries", "whe_1", "--json")[1])) == 2


def test_the_command_that_replays(run: Run, server: Server) -> None:
    server.on("POST", f"{HOOK}/replay", Answer(REPLAYED))
    replay = ("webhooks", "replay", "whe_1")
    assert run(*replay, "evt_1", "evt_2") == (0, "Events on their way again: 2.\n", "")
    assert server.seen[-1].json() == {"event_ids": ["evt_1", "evt_2"]}
    span = ("--from", "1970-01-02T00:00:00+0000", "--to", "1970-01-03T00:00:00+0000")
    assert json.loads(run(*replay, *span, "--json")[1])["event_ids"] == ["evt_1", "evt_2"]
    assert server.seen[-1].json() == {"from": 86400, "to": 172800}
    assert run(*replay, "--from", "2024-01-01")[0] == 0
    assert server.seen[-1].json()["to"] > 1_700_000_000
    for wrong in ((), ("evt_1", "--from", "2024-01-01"), ("--to", "2024-01-01"), ("evt_1", "--to", "2024-01-01")):
        assert main([*replay, *wrong]) == 2
