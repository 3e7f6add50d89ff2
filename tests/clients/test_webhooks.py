from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta, timezone

import pytest
from standardwebhooks.webhooks import Webhook

from burnish import Burnish, WebhookVerificationError

UTC = timezone.utc  # noqa: UP017 - Python 3.10 knows no other name

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = json.dumps(
    {
        "id": "evt_1",
        "object": "event",
        "type": "fine_tuning.job.succeeded",
        "created_at": 1,
        "data": {"id": "ftjob-1", "备注": "好"},
    },
    ensure_ascii=False,
).encode()


def signed(body: bytes = BODY, age: float = 0.0) -> dict[str, str]:
    at = datetime.now(tz=UTC) - timedelta(seconds=age)
    signature = Webhook(SECRET).sign("evt_1", at, body.decode())
    return {"Webhook-Id": "evt_1", "Webhook-Timestamp": str(int(at.timestamp())), "Webhook-Signature": signature}


def unwrap(body: bytes | str, headers: dict[str, str], secret: str = SECRET) -> object:
    with Burnish(base_url="http://127.0.0.1:1", api_key="k") as client:
        return client.webhooks.unwrap(body, headers, secret)


@pytest.mark.parametrize("body", [BODY, BODY.decode()])
def test_a_signed_delivery(body: bytes | str) -> None:
    event = unwrap(body, signed())
    assert (event.type, event.data["id"]) == ("fine_tuning.job.succeeded", "ftjob-1")


def test_one_good_signature_of_two_is_enough() -> None:
    headers = signed()
    headers["Webhook-Signature"] = "v1,AAAA v1a,BBBB " + headers["Webhook-Signature"]
    assert unwrap(BODY, headers).id == "evt_1"


# What a receiver would see, signed when the test runs: a signature made at collection ages with the suite.
REFUSED = {
    "changed body": lambda: (BODY + b" ", signed(), SECRET),
    "too old": lambda: (BODY, signed(age=600), SECRET),
    "from the future": lambda: (BODY, signed(age=-600), SECRET),
    "malformed signature": lambda: (BODY, {**signed(), "Webhook-Signature": "malformed"}, SECRET),
    "signature not base64": lambda: (BODY, {**signed(), "Webhook-Signature": "v1,%"}, SECRET),
    "timestamp not a number": lambda: (BODY, {**signed(), "Webhook-Timestamp": "nan"}, SECRET),
    "no headers": lambda: (BODY, {}, SECRET),
    "another secret": lambda: (BODY, signed(), "whsec_" + base64.b64encode(bytes(32)).decode()),
    "secret not base64": lambda: (BODY, signed(), "whsec_密"),
    "no secret": lambda: (BODY, signed(), ""),
    "body not UTF-8": lambda: (b"\xff", signed(), SECRET),
    "body not an object": lambda: (b"[]", signed(b"[]"), SECRET),
    "body not JSON": lambda: (b"not json", signed(b"not json"), SECRET),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused(case: str) -> None:
    body, headers, secret = REFUSED[case]()
    with pytest.raises(WebhookVerificationError):
        unwrap(body, headers, secret)
