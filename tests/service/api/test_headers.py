"""What a browser may make of an answer: nothing but what it is."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re

import httpx
import pytest

from service.tables.jobs import JobArtifactRow
from tests.fixtures.service import RunningApi, upload


def root_of(api: RunningApi) -> str:
    return api.url.removesuffix("/v1")


def require_safe(answer: httpx.Response) -> None:
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/docs", 200),
        ("/docs/static/swagger-ui-bundle.js", 200),
        ("/docs/static/nothing", 404),
        ("/openapi.json", 200),
        ("/v1/files", 401),
        ("/<script>", 404),
    ],
)
def test_every_answer_has_the_headers(api: RunningApi, path: str, status: int) -> None:
    answer = httpx.get(root_of(api) + path)
    assert answer.status_code == status
    require_safe(answer)


def test_an_unexpected_error_has_them_too(
    api: RunningApi, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("service.files.repository.fetch_file_page", broken)
    answer = client.get("/files")
    assert answer.status_code == 500
    require_safe(answer)


def test_the_page_runs_its_own_script_alone(api: RunningApi) -> None:
    page = httpx.get(f"{root_of(api)}/docs")
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert policy["connect-src"] == "'self'"
    assert "url: '/openapi.json'" in script


@pytest.mark.parametrize("name", ["网页.html.jsonl", "a.svg.txt"])
def test_a_users_file_is_never_shown_as_a_page(client: httpx.Client, name: str) -> None:
    row = b'{"text": "<script>alert(1)</script>"}\n'
    file_id = upload(client, row * 3, filename=name).json()["id"]
    answer = client.get(f"/files/{file_id}/content")
    assert answer.status_code == 200
    require_safe(answer)
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert "html" not in answer.headers["content-type"]
    assert "svg" not in answer.headers["content-type"]


def test_the_report_is_a_page_without_powers(api: RunningApi, client: httpx.Client) -> None:
    job_id = client.post(
        "/fine_tuning/jobs", json={"model": "tiny", "training_file": upload(client).json()["id"]}
    ).json()["id"]
    page = "<html><script>alert(1)</script>报告</html>".encode()
    stored = api.context.storage.put(f"jobs/{job_id}/report.html", [page])
    with api.context.db.write() as session:
        session.add(
            JobArtifactRow(
                job_id=job_id,
                name="report.html",
                blob_key=stored.key,
                filename="report.html",
                media_type="text/html; charset=utf-8",
                bytes=stored.bytes,
                sha256=stored.sha256,
            )
        )
    answer = client.get(f"/fine_tuning/jobs/{job_id}/report", headers={"Accept": "text/html"})
    assert answer.content == page
    require_safe(answer)
    policy = {part.strip() for part in answer.headers["content-security-policy"].split(";")}
    assert {"sandbox", "form-action 'none'", "base-uri 'none'"} <= policy
    assert not any(part.startswith("script-src") for part in policy)


@pytest.mark.slow
def test_the_document_is_encoded_once_and_known_by_its_tag(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{root_of(api)}/openapi.json"
    plain = httpx.get(address, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers

    def again(*_: object, **__: object) -> None:
        raise AssertionError("it is encoded again")

    monkeypatch.setattr("service.api.docs.json.dumps", again)
    with httpx.stream("GET", address, headers={"Accept-Encoding": "br, gzip;q=0.5"}) as packed:
        raw = b"".join(packed.iter_raw())
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content
    assert len(raw) * 5 < len(plain.content)
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.headers["etag"] != plain.headers["etag"]
    for tag in (plain.headers["etag"], f'"x", W/{plain.headers["etag"]}', "*"):
        known = httpx.get(address, headers={"If-None-Match": tag, "Accept-Encoding": "gzip;q=0"})
        assert (known.status_code, known.content) == (304, b"")
        assert known.headers["etag"] == plain.headers["etag"]
    assert httpx.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
