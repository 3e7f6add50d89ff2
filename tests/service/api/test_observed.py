from __future__ import annotations

from typing import Any

import httpx

from service.kit import metrics
from tests.fixtures.service import GOOD_JSONL, RunningApi, upload


def requests() -> dict[tuple[str, str, str], float]:
    (family,) = metrics.REQUESTS.collect()
    return {
        (sample.labels["route"], sample.labels["method"], sample.labels["status"]): sample.value
        for sample in family.samples
    }


def value(metric: Any) -> float:
    (family,) = metric.collect()
    return family.samples[0].value


def test_requests_are_counted_by_the_routes_template(api: RunningApi, client: httpx.Client) -> None:
    before = requests()
    for path in ("/fine_tuning/jobs/ftjob-a", "/fine_tuning/jobs/ftjob-b"):
        assert client.get(path).status_code == 404
    client.get("/files")
    client.get("/no/such/路")
    client.request("PROPFIND", "/files")
    assert httpx.get(api.url.removesuffix("/v1") + "/healthz").status_code == 200
    new = {kind: count - before.get(kind, 0) for kind, count in requests().items() if count != before.get(kind)}
    assert new == {
        ("/v1/fine_tuning/jobs/{job_id}", "GET", "404"): 2,
        ("/v1/files", "GET", "200"): 1,
        ("unmatched", "GET", "404"): 1,
        ("/v1/files", "other", "405"): 1,
        ("/healthz", "GET", "200"): 1,
    }
    assert value(metrics.REQUESTS_IN_FLIGHT) == 0


def test_bytes_of_datasets_are_counted_both_ways(client: httpx.Client) -> None:
    received, sent = value(metrics.UPLOAD_BYTES), value(metrics.DOWNLOAD_BYTES)
    file_id = upload(client).json()["id"]
    assert value(metrics.UPLOAD_BYTES) - received > len(GOOD_JSONL)
    content = client.get(f"/files/{file_id}/content").content
    assert value(metrics.DOWNLOAD_BYTES) - sent == len(content) == len(GOOD_JSONL)
    client.post("/files", json={})
    part = client.get(f"/files/{file_id}/content", headers={"Range": "bytes=0-9"}).content
    assert value(metrics.DOWNLOAD_BYTES) - sent == len(GOOD_JSONL) + len(part)
