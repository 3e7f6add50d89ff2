"""One whole job through real processes, as an operator sees it: logs, metrics, one trace, and no secret in any."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.collector import Collected, run_collector
from tests.fixtures.processes import WEBHOOK_SECRET, Server, jsonl, rows, running_server, wait_until
from tests.fixtures.seaweedfs import run_seaweedfs
from tests.fixtures.service import write_catalog

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

SECRET_KEY = "a secret key that must stay in the settings"
TOKEN = "the-collectors-own-token"
HUB_TOKEN = "hf_a-token-for-the-hub"


@dataclass
class Ran:
    """A job that has succeeded, and what the operator has of it."""

    server: Server
    job_id: str
    request_id: str
    collected: Collected
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Generator[Ran]:
    folder = tmp_path_factory.mktemp("observed")
    with run_seaweedfs() as s3, run_collector() as collected:
        environment = {
            "BURNISH_CATALOG": str(write_catalog(folder, tiny_base)),
            "BURNISH_STORAGE_URL": s3.url,
            "BURNISH_STORAGE_ACCESS_KEY": s3.access_key,
            "BURNISH_STORAGE_SECRET_KEY": s3.secret_key,
            "BURNISH_SECRET_KEY": SECRET_KEY,
            "BURNISH_WEBHOOK_URL": f"{collected.url}/hook",
            "BURNISH_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "BURNISH_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "HF_TOKEN": HUB_TOKEN,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collected.url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={TOKEN}",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        with running_server(folder / "data", preloaded=False, **environment) as server, server.client() as client:
            key = json.loads((server.data / "client.json").read_text())["api_key"]
            endpoint = client.webhooks.endpoints.create(
                name="观察", url=f"{collected.url}/mine", event_types=["fine_tuning.job.succeeded"]
            )
            file = client.files.create(file=jsonl(rows(12)), filename="训练.jsonl")
            hyperparameters: dict[str, Any] = {"n_epochs": 1, "batch_size": 4, "lora": {"rank": 2, "alpha": 4}}
            body = {
                "model": "tiny",
                "training_file": file.id,
                "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
            }
            headers = {"Authorization": f"Bearer {key}"}
            url = f"http://127.0.0.1:{server.port}/v1/fine_tuning/jobs"
            answer = httpx.post(url, json=body, headers=headers, trust_env=False, timeout=60)
            job_id = answer.json()["id"]
            assert client.jobs.wait(job_id, timeout=400).status == "succeeded", server.log()
            httpx.get(url, headers={"Authorization": f"Bearer {key}x"}, trust_env=False)
            wait_until(lambda: len(collected.webhooks) >= 2, what="both webhooks")
            wait_until(lambda: sum(span.name == "deliver webhook" for span in collected.spans) >= 2, what="their spans")
            wait_until(lambda: any(span.name == "attempt" for span in collected.spans), what="the attempt's span")
            wait_until(lambda: total(server, "worker-1", "burnish_attempts_total") == 1, what="the end to be counted")
            secrets = {
                "the API key": key,
                "the settings' secret key": SECRET_KEY,
                "S3's secret": s3.secret_key,
                "S3's access key": s3.access_key,
                "the webhook's secret": WEBHOOK_SECRET.removeprefix("whsec_"),
                "the endpoint's secret": endpoint.signing_secret.removeprefix("whsec_"),
                "the hub's token": HUB_TOKEN,
                "the collector's token": TOKEN,
            }
            yield Ran(server, job_id, answer.headers["x-request-id"], collected, secrets)


def scrape(server: Server, process: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the samples of a process, found as Prometheus finds it; labels come in the order of their names."""
    (group,) = json.loads((server.data / "metrics" / f"{process}.json").read_text("utf-8"))
    text = httpx.get(f"http://{group['targets'][0]}/metrics", trust_env=False, timeout=30).text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(server: Server, process: str, name: str) -> float:
    return sum(value for (found, _), value in scrape(server, process).items() if found == name)


def entries(server: Server) -> list[dict[str, Any]]:
    lines = [line for path in (server.data / "logs").glob("*.log") for line in path.read_text("utf-8").splitlines()]
    return [json.loads(line) for line in lines]


def test_one_trace_goes_from_the_request_to_the_trainer_and_the_webhook(ran: Ran) -> None:
    request = next(span for span in ran.collected.spans if span.name == "POST /v1/fine_tuning/jobs")
    trace = ran.collected.trace(request.trace_id)
    parents = {span.span_id: span.name for span in trace.values()}
    tree = {name: (span.service.removeprefix("burnish-"), parents.get(span.parent_id)) for name, span in trace.items()}
    expected: dict[str, tuple[str, str | None]] = {
        "POST /v1/fine_tuning/jobs": ("api", None),
        "create job": ("api", "POST /v1/fine_tuning/jobs"),
        **dict.fromkeys(("validate files", "dispatch", "deliver webhook"), ("controller", "create job")),
        **dict.fromkeys(("wait in queue", "claim", "attempt"), ("worker", "create job")),
        **dict.fromkeys(("stage", "train", "publish"), ("worker", "attempt")),
        **dict.fromkeys(("loading", "tokenizing", "training", "exporting", "reporting"), ("worker", "train")),
    }
    assert {name: tree.get(name) for name in expected} == expected
    assert not any(span.failed for span in trace.values())
    train, phase = trace["train"], trace["training"]
    assert train.begin <= phase.begin < phase.end <= train.end


def test_every_process_shows_what_the_job_did(ran: Ran) -> None:
    worker, controller = (scrape(ran.server, name) for name in ("worker-1", "controller"))
    api = sum((Counter(scrape(ran.server, name)) for name in ("api", "api-2")), Counter[tuple[str, tuple[str, ...]]]())
    assert api["burnish_requests_total", ("POST", "/v1/fine_tuning/jobs", "200")] == 1
    assert api["burnish_requests_total", ("GET", "/v1/fine_tuning/jobs", "401")] == 1
    assert api["burnish_upload_bytes_total", ()] > 0
    assert worker["burnish_attempts_total", ("succeeded",)] == 1
    assert worker["burnish_jobs_ended_total", ("succeeded",)] == 1
    assert worker["burnish_training_steps_total", ()] == 3
    assert worker["burnish_training_tokens_total", ()] > 0
    assert worker["burnish_cpu_seconds_total", ()] > 0
    assert worker["burnish_gpu_seconds_total", ()] >= 0
    assert worker["burnish_event_relay_seconds_count", ()] > 3
    assert worker["burnish_queue_wait_seconds_count", ()] == worker["burnish_attempt_seconds_count", ()] == 1
    assert worker["burnish_storage_calls_total", ("put", "ok")] > 3
    assert controller["burnish_webhook_attempts_total", ("delivered",)] == 2
    assert controller["burnish_workers", ()] == 1

    def nobody_runs() -> bool:
        return scrape(ran.server, "controller")["burnish_jobs", ("running",)] == 0

    wait_until(nobody_runs, what="the controller's next look at the jobs")
    assert ("burnish_outbox_lag_seconds", ("enqueue_job",)) in controller
    assert ("burnish_engine_conversations", ()) in scrape(ran.server, "engine")


def test_every_line_of_every_log_is_json_and_names_the_job(ran: Ran) -> None:
    said = entries(ran.server)
    assert {entry["role"] for entry in said} == {"api", "controller", "worker", "engine"}
    of_job = [entry for entry in said if entry.get("job_id") == ran.job_id]
    assert {entry["role"] for entry in of_job} == {"controller", "worker"}
    (claimed,) = [entry for entry in of_job if "claimed" in entry["message"]]
    assert (claimed["process"], claimed["attempt"]) == ("worker-1", 1)
    (started,) = [entry for entry in of_job if "trainer started" in entry["message"]]
    request = next(span for span in ran.collected.spans if span.name == "POST /v1/fine_tuning/jobs")
    assert started["trace_id"] == request.trace_id


def test_no_secret_is_in_a_log_a_span_or_a_metric(ran: Ran) -> None:
    logs = "".join(path.read_text("utf-8", "replace") for path in (ran.server.data / "logs").iterdir())
    sent = b"".join(ran.collected.bodies)
    shown = "".join(str(scrape(ran.server, name)) for name in ("api", "api-2", "controller", "worker-1", "engine"))
    assert ran.job_id in logs
    assert ran.job_id.encode() in sent
    for what, secret in ran.secrets.items():
        forms = {secret, base64.b64encode(secret.encode()).decode()}
        for form in forms:
            assert form not in logs, what
            assert form.encode() not in sent, what
            assert form not in shown, what
