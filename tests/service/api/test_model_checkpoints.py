from __future__ import annotations

import httpx

from tests.fixtures.service import RunningApi
from tests.service.api.test_chains import created, finish


def test_a_checkpoint_answers_by_its_name(
    api: RunningApi, client: httpx.Client, stranger: httpx.Client, file_id: str
) -> None:
    name = finish(api, created(client, file_id, "tiny", suffix="desk")["id"], checkpoint=2)
    shown = client.get(f"/models/{name}:ckpt-step-2").json()
    assert (shown["id"], shown["object"]) == (f"{name}:ckpt-step-2", "model")
    assert shown["owned_by"] == client.get(f"/models/{name}").json()["owned_by"]
    for wrong in (f"{name}:ckpt-step-3", f"{name}:ckpt-step-二", f"{name}:ckpt-step-"):
        assert client.get(f"/models/{wrong}").status_code == 404
    assert stranger.get(f"/models/{name}:ckpt-step-2").status_code == 404
