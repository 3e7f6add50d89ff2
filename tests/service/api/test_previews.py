"""Previews over HTTP, counted by a worker's thread and the real trainer, held against what a job then reports."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import func, select

from service.bases import repository as bases
from service.controller.validation import validate_jobs
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobRow
from service.tables.keys import ProjectRow
from service.tables.previews import PreviewRow
from service.tables.workers import WorkerRow
from service.worker.presence import WorkerPresence
from service.worker.previews import Previewer
from service.worker.run import WorkerRuntime, run_job
from service.workers.capacity import Capacity
from tests.fixtures.preloaded import preloaded_commands, start_preloaded
from tests.fixtures.service import RunningApi, make_context, run_api, upload, write_catalog
from tests.service.api.test_base_cards import make_card
from tests.service.worker.world import eventually
from trainer.contract.family import MethodFit

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[RunningApi]:
    folder = tmp_path_factory.mktemp("previews")
    catalog = write_catalog(folder, tiny_base)
    with run_api(make_context(folder, catalog=catalog, heartbeat_seconds=0.5, lease_seconds=60)) as running:
        yield running


@pytest.fixture
def user(live: RunningApi, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with live.client(f"test-{request.node.name}"[:64]) as client:
        client.timeout = httpx.Timeout(90)
        yield client


@contextmanager
def worker(live: RunningApi, *, counts: bool = True, **capacity: Any) -> Iterator[None]:
    present = WorkerPresence(live.context, name="w-预览", capacity=Capacity(**capacity))
    with present:
        eventually(lambda: rows(live, WorkerRow) > 0)
        if not counts:
            yield
            return
        commands = {
            "command": start_preloaded().command("trainer.programs.preview"),
            "is_warm": False,
            "prepare_command": preloaded_commands()["prepare_command"],
        }
        with Previewer(live.context, worker_id=present.worker_id, **commands):
            yield


def rows(live: RunningApi, table: type[JobRow] | type[PreviewRow] | type[WorkerRow]) -> int:
    with live.context.db.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def unfinished(live: RunningApi) -> list[str]:
    with live.context.db.read() as session:
        return list(session.scalars(select(PreviewRow.id).where(PreviewRow.result.is_(None))).all())


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def jsonl(*lines: dict[str, Any]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


SHORT = [chat(f"数字 {n}?", f"{n}!" * (1 + n % 4)) for n in range(12)]
DATA = jsonl(*SHORT, chat("x" * 300, "丢"), chat("长", "字" * 99))


def body(client: httpx.Client, **more: Any) -> dict[str, Any]:
    method = {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 2, "max_length": 128, "dtype": "float32"}},
    }
    return {"model": "tiny", "training_file": upload(client, DATA).json()["id"], "method": method, "seed": 3, **more}


def test_a_preview_is_what_a_job_then_reports(live: RunningApi, user: httpx.Client) -> None:
    order = body(user, lora={"rank": 3})
    with worker(live):
        first = user.post("/fine_tuning/jobs/preview?rows=2", json=order)
    assert first.status_code == 200, first.text
    preview = first.json()
    assert (rows(live, JobRow), rows(live, PreviewRow)) == (0, 0)
    assert preview["object"] == "fine_tuning.job.preview"
    assert preview["training"]["rows"] == 14
    assert (preview["training"]["dropped_lines"], preview["training"]["cut_lines"]) == ([13], [14])
    assert len(preview["sample"]) == 2
    shown = "".join(token["text"] for token in preview["sample"][0]["tokens"] if token["trained"])
    assert shown == "0!<|im_end|>"
    assert preview["estimates"]["time"]["earlier_jobs"] == 0
    assert "assumption" in preview["estimates"]["time"]["method"]
    assert preview["queue"] == {
        "position": 1,
        "reason": "workers_busy",
        "message": "0 queued job(s) are ahead of it; 1 running worker(s) can run it.",
    }

    job_id = user.post("/fine_tuning/jobs", json=order).json()["id"]
    validate_jobs(live.context, MemoryJobQueue())
    run_job(WorkerRuntime(context=live.context, owner="w", stop=threading.Event(), **preloaded_commands()), job_id)
    job = user.get(f"/fine_tuning/jobs/{job_id}").json()
    assert job["status"] == "succeeded", job["error"]
    assert job["trained_tokens"] == preview["trained_tokens"]
    assert job["method"] == preview["method"]
    assert (job["lora"]["rank"], job["queue"], job["ended_by"]) == (3, None, None)
    assert job["running_seconds"] > 0

    with worker(live):
        again = user.post("/fine_tuning/jobs/preview?rows=0", json={**order, "timeout": 1}).json()
    assert again["sample"] == []
    time = again["estimates"]["time"]
    assert time["earlier_jobs"] == 1
    assert time["seconds"] == pytest.approx(job["running_seconds"], rel=0.2)
    assert any("The timeout of 1 seconds is shorter" in warning for warning in again["warnings"])
    with worker(live):
        on_from = user.post("/fine_tuning/jobs/preview", json=body(user, model=job["fine_tuned_model"])).json()
        unfinished = user.post("/fine_tuning/jobs", json=body(user)).json()["id"]
        chained = user.post("/fine_tuning/jobs/preview", json=body(user, model=unfinished)).json()
    hyperparameters = on_from["method"]["supervised"]["hyperparameters"]
    assert (hyperparameters["lora"]["rank"], on_from["base_model"]) == (3, "tiny")
    assert chained["trained_tokens"] == preview["trained_tokens"]
    assert user.post(f"/fine_tuning/jobs/{unfinished}/cancel").status_code == 200


def test_what_a_creation_refuses_a_preview_refuses(live: RunningApi, user: httpx.Client) -> None:
    order = body(user)
    for change in ({"model": "none"}, {"training_file": "file-none"}, {"lora": {"rank": 0}}, {"priority": "urgent"}):
        made = user.post("/fine_tuning/jobs", json={**order, **change})
        seen = user.post("/fine_tuning/jobs/preview", json={**order, **change})
        assert (seen.status_code, seen.json()) == (made.status_code, made.json())
    assert user.post("/fine_tuning/jobs/preview?rows=51", json=order).status_code == 400


def test_a_preview_reports_the_errors_of_the_job(live: RunningApi, user: httpx.Client) -> None:
    pairs = upload(user, DATA).json()["id"]
    order = {"model": "tiny", "training_file": pairs, "method": {"type": "dpo"}}
    too_long = body(user, method={"type": "supervised", "supervised": {"hyperparameters": {"max_length": 8}}})
    with worker(live):
        wrong = user.post("/fine_tuning/jobs/preview", json=order)
        empty = user.post("/fine_tuning/jobs/preview", json=too_long)
    error = wrong.json()["error"]
    assert (wrong.status_code, error["code"], error["param"]) == (400, "invalid_training_file", "training_file")
    assert error["problems"][0]["line"] == 1
    assert (empty.status_code, empty.json()["error"]["code"]) == (400, "no_trainable_rows")


def test_without_a_worker_it_is_said_at_once(live: RunningApi, user: httpx.Client) -> None:
    answer = user.post("/fine_tuning/jobs/preview", json=body(user))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_worker")
    assert "burnish-server worker" in answer.json()["error"]["message"]


def test_the_same_request_waits_on_for_a_late_answer(tmp_path: Path, tiny_base: Path) -> None:
    catalog = write_catalog(tmp_path, tiny_base)
    context = make_context(tmp_path, catalog=catalog, preview_seconds=60, heartbeat_seconds=0.5)
    with run_api(context) as live, live.client() as client, worker(live, counts=False):
        order = body(client)
        client.post("/fine_tuning/jobs/preview?wait=0", json=order)
        answer = client.post("/fine_tuning/jobs/preview?wait=0.2", json=order)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (503, "preview_timeout")
        assert "busy with another preview" in error["message"]
        assert (answer.headers["x-should-retry"], rows(live, PreviewRow)) == ("false", 1)
        with worker(live):
            eventually(lambda: not unfinished(live))
        counted = client.post("/fine_tuning/jobs/preview", json=order)
        assert (counted.status_code, rows(live, PreviewRow)) == (200, 0), counted.text
        with context.db.write() as session:
            project = session.scalar(select(ProjectRow.id).where(ProjectRow.name == "default"))
            for number in range(4):
                session.add(PreviewRow(id=f"p{number}", project_id=project, job={}, rows_shown=1))
        full = client.post("/fine_tuning/jobs/preview", json=order)
        assert (full.status_code, full.json()["error"]["code"]) == (409, "too_many_previews")
        assert full.json()["error"]["message"].startswith("4 previews of this project are under way already")
        assert int(full.headers["retry-after"]) > 0


def test_the_process_that_counts_is_kept_with_its_imports(live: RunningApi, user: httpx.Client) -> None:
    present = WorkerPresence(live.context, name="w", capacity=Capacity())
    previewer = Previewer(
        live.context, worker_id=present.worker_id, prepare_command=preloaded_commands()["prepare_command"]
    )
    order = body(user, method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}})
    with present, previewer:
        eventually(lambda: rows(live, WorkerRow) > 0)
        answers, processes = [], []
        for _ in range(2):
            answers.append(user.post("/fine_tuning/jobs/preview", json=order).json())
            processes.append(_counting_processes())
        assert processes[0] == processes[1] != []
        # The time of a layer is measured once: the same shape has the same speed.
        assert answers[0]["estimates"]["time"] == answers[1]["estimates"]["time"]
        failed = user.post(
            "/fine_tuning/jobs/preview", json={**order, "training_file": upload(user, b"{}\n").json()["id"]}
        )
        assert failed.status_code == 400
        for process in processes[1]:
            os.kill(process, signal.SIGKILL)
        assert user.post("/fine_tuning/jobs/preview", json=order).status_code in (200, 503)
        assert user.post("/fine_tuning/jobs/preview", json=order).json()["steps"] == answers[0]["steps"]
    assert _counting_processes() == []


def _counting_processes() -> list[int]:
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if child.cmdline()[-2:] == ["trainer.programs.preview", "--serve"]]


def test_a_preview_warns_that_no_gguf_can_be_written(live: RunningApi, user: httpx.Client) -> None:
    entry = live.context.catalog.find_base("tiny")
    assert entry is not None
    with live.context.db.write() as session:
        card = make_card(gguf=MethodFit(works=False, reason="甲 is not written."))
        bases.store_findings(session, entry, files=None, card=card, problem=None)
    with worker(live):
        preview = user.post("/fine_tuning/jobs/preview?rows=0", json=body(user)).json()
    with live.context.db.write() as session:
        bases.delete_base_row(session, "tiny")
    assert "What is trained on tiny cannot be exported as GGUF: 甲 is not written." in preview["warnings"]


def test_a_worker_that_cannot_run_the_job_counts_it_all_the_same(live: RunningApi, user: httpx.Client) -> None:
    with worker(live):
        preview = user.post("/fine_tuning/jobs/preview", json=body(user, resources={"gpus": 1})).json()
    assert preview["queue"]["reason"] == "no_fitting_worker"
    assert preview["queue"]["message"] == "No running worker can run it: w-预览 has no GPU."
    assert preview["steps"] > 0
