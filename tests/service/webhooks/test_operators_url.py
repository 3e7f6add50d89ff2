"""The operator's URL may hold a secret: it is sent, and kept nowhere."""

from __future__ import annotations

import pytest

from service.context import Context
from service.webhooks.target import DeliveryTarget
from tests.service.webhooks.conftest import SECRET, Answer, Receiver
from tests.service.webhooks.test_sender import MakeEvent, attempts_of, make_due, make_event, row_of, send

__all__ = ["make_event"]


def test_the_secret_in_the_settings_url_is_sent_and_kept_nowhere(
    context: Context, receiver: Receiver, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    event_id = make_event()
    url = receiver.url + "?token=s3cret-令牌#part"
    receiver.answers = [Answer(302, {"Location": url.encode().decode("latin-1")}), Answer(500)]
    for _ in range(2):
        send(context, DeliveryTarget(url, (SECRET,)), delays=(5.0,))
        make_due(context)
    assert [request.path.partition("?")[2][:15] for request in receiver.received] == ["token=s3cret-%E"] * 2
    tries, row = attempts_of(context, event_id), row_of(context, event_id)
    assert [attempt.url for attempt in tries] == [receiver.url] * 2
    kept = [*(attempt.error or "" for attempt in tries), row.error or "", caplog.text]
    assert "redirect to http://127.0.0.1" in kept[0]
    assert not any("s3cret" in text for text in kept)
