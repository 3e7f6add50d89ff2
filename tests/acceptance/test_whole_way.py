"""Real processes through the whole way of a job: what a user does, with the official client and with ours."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai import OpenAI

from burnish import Burnish, JobFailed, WebhookVerificationError
from tests.fixtures.processes import WEBHOOK_SECRET, Received, Server, jsonl, rows, running_server, wait_until
from tests.fixtures.scale import FULL
from tests.fixtures.service import write_catalog
from trainer.contract.result import read_manifest

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

QUICK_JOB: dict[str, Any] = {"n_epochs": 1, "batch_size": 4, "lora": {"rank": 4, "alpha": 8}}
LONG_EPOCHS = 20 if FULL else 8
LONG_STEPS = LONG_EPOCHS * 30


@pytest.fixture(scope="module")
def received() -> Generator[tuple[str, Received], None, None]:
    kept = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kept.requests.append((dict(self.headers.items()), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", kept
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, received: tuple[str, Received]
) -> Generator[Server, None, None]:
    folder = tmp_path_factory.mktemp("up")
    catalog = write_catalog(folder, tiny_base)
    with running_server(
        folder / "data",
        preloaded=not FULL,
        BURNISH_CATALOG=str(catalog),
        BURNISH_WEBHOOK_URL=received[0],
        BURNISH_WEBHOOK_SECRET=WEBHOOK_SECRET,
        BURNISH_WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8",
    ) as running:
        yield running
        children = running.descendants()
    assert running.process.returncode == 0
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def client(server: Server) -> Generator[Burnish, None, None]:
    with server.client() as made:
        yield made


@pytest.fixture(scope="module")
def training_file(client: Burnish) -> str:
    return client.files.create(file=jsonl(rows(24)), filename="训练.jsonl", purpose="fine-tune").id


@pytest.fixture(scope="module")
def validation_file(client: Burnish) -> str:
    return client.files.create(file=jsonl(rows(36)[24:]), filename="验证.jsonl", purpose="fine-tune").id


def test_openais_client_trains_a_model_and_gets_everything(
    server: Server,
    client: Burnish,
    training_file: str,
    validation_file: str,
    received: tuple[str, Received],
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    credentials = json.loads((server.data / "client.json").read_text())
    with OpenAI(**credentials, webhook_secret=WEBHOOK_SECRET, _strict_response_validation=True) as official:
        job = official.fine_tuning.jobs.create(
            model="tiny",
            training_file=training_file,
            validation_file=validation_file,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}},
            suffix="desk",
            seed=3,
            metadata={"团队": "客服"},
        )
        ended = client.jobs.wait(job.id, timeout=300)
        job = official.fine_tuning.jobs.retrieve(job.id)
        assert (job.status, ended.status) == ("succeeded", "succeeded"), server.log()
        assert job.error is None
        assert job.fine_tuned_model == f"ft:tiny:burnish:desk:{job.id[-8:]}"
        assert job.trained_tokens
        assert job.hyperparameters.n_epochs == 2
        assert isinstance(job.hyperparameters.learning_rate_multiplier, float)
        assert job.fine_tuned_model in [model.id for model in official.models.list()]

        events = list(official.fine_tuning.jobs.list_events(job.id, limit=7))
        steps = [event.data["step"] for event in events if event.type == "metrics" and "train_loss" in event.data]
        assert steps == list(range(12, 0, -1))  # 24 rows, 4 at a time, twice; newest first, each once
        assert events[0].message == "The job has successfully completed"

        checkpoints = list(official.fine_tuning.jobs.checkpoints.list(job.id))
        assert checkpoints[0].step_number == 12
        assert checkpoints[0].fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-12"

        csv = official.files.content(job.result_files[0]).text.splitlines()
        assert csv[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
        assert [line.split(",")[0] for line in csv[1:]] == [str(n) for n in range(1, 13)]

        notices = wait_until(
            lambda: [(headers, body) for headers, body in received[1].requests if job.id.encode() in body],
            what="the webhook",
        )
        headers, body = notices[0]
        notice = official.webhooks.unwrap(body, headers)
        assert (notice.type, notice.data.id) == ("fine_tuning.job.succeeded", job.id)
        _chats(official, job.fine_tuned_model)

    asked: Any = {"model": job.fine_tuned_model, "messages": [{"role": "user", "content": "你好"}], "max_tokens": 6}
    whole = client.chat.completions.create(**asked, temperature=0).choices[0].message.content
    with client.chat.completions.create(**asked, temperature=0, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == whole
    adapter = client.jobs.download_adapter(job.id, tmp_path / "adapter", extract=True)
    assert read_manifest(adapter).verify_files(adapter) == []
    _loads_in_plain_peft(tiny_base, adapter)
    report = client.jobs.report(job.id)
    assert "nan" not in json.dumps(report).lower().split()
    page = client.jobs.report_html(job.id)
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "这是" in page


def _chats(official: OpenAI, model: str) -> None:
    """The result answers, whole and streamed, otherwise than its base; so does its last checkpoint."""

    def ask(name: str) -> tuple[str | None, list[float]]:
        answer = official.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "你好"}], max_tokens=24, temperature=0, logprobs=True
        )
        logprobs = answer.choices[0].logprobs
        return answer.choices[0].message.content, [token.logprob for token in (logprobs and logprobs.content) or ()]

    tuned = ask(model)
    assert tuned[1]
    assert tuned != ask("tiny")
    assert ask(f"{model}:ckpt-step-12") == tuned
    with official.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "你好"}], max_tokens=24, temperature=0, stream=True
    ) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == tuned[0]


def _loads_in_plain_peft(base: Path, adapter: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    inputs = tokenizer("你好", return_tensors="pt")
    with torch.no_grad():
        before = model(**inputs).logits
        after = PeftModel.from_pretrained(model, adapter)(**inputs).logits
    assert not torch.equal(before, after)


def test_an_order_with_limits_does_what_its_preview_said(server: Server, client: Burnish, training_file: str) -> None:
    asked: dict[str, Any] = {"n_epochs": 3, "batch_size": 2, "dtype": "float32"}
    more: dict[str, Any] = {
        "lora": {"rank": 2},
        "priority": "high",
        "timeout": 600,
        "budget": {"max_tokens": 2000},
        "resources": {"gpus": 0},
    }
    told = client.jobs.preview(model="tiny", training_file=training_file, hyperparameters=asked, seed=3, **more)
    assert told.ended_by == "budget"
    assert told.queue.position == 1
    credentials = json.loads((server.data / "client.json").read_text())
    with OpenAI(**credentials, _strict_response_validation=True) as official:
        job = official.fine_tuning.jobs.create(
            model="tiny",
            training_file=training_file,
            method={"type": "supervised", "supervised": {"hyperparameters": asked}},  # type: ignore[typeddict-unknown-key]
            seed=3,
            extra_body=more,
        )
    ended = client.jobs.wait(job.id, timeout=300)
    assert (ended.status, ended.ended_by) == ("succeeded", "budget"), server.log()
    assert ended.trained_tokens == told.trained_tokens <= 2000
    assert ended.method == told.method
    assert (ended.priority, ended.timeout, ended.queue) == (10, 600, None)


def test_a_bad_dataset_fails_with_its_lines(
    client: Burnish, training_file: str, received: tuple[str, Received]
) -> None:
    bad = jsonl([*rows(2), {"messages": []}, {"messages": [{"role": "robot", "content": "好"}]}])
    file = client.files.create(file=bad, filename="bad 数据.jsonl", purpose="fine-tune")
    job = client.jobs.create(model="tiny", training_file=file.id, validation_file=training_file)
    with pytest.raises(JobFailed) as caught:
        client.jobs.wait(job.id, timeout=60)
    error = caught.value.job.error
    assert error is not None
    assert (error.code, error.param) == ("invalid_training_file", "training_file")
    for expected in ("bad 数据.jsonl", "line 3", "line 4", "robot"):
        assert expected in error.message
    wait_until(
        lambda: [body for _, body in received[1].requests if job.id.encode() in body and b".failed" in body],
        what="the webhook of the failure",
    )


def test_an_endpoint_of_the_project_gets_the_event_too(
    client: Burnish, training_file: str, received: tuple[str, Received]
) -> None:
    hooks = client.webhooks.endpoints
    mine = hooks.create(name="我的", url=received[0], event_types=["fine_tuning.job.cancelled"])
    assert mine.signing_secret
    job = client.jobs.cancel(client.jobs.create(model="tiny", training_file=training_file).id)

    def told(secret: str) -> list[str]:
        found: list[str] = []
        for headers, body in list(received[1].requests):
            if job.id.encode() in body:
                with contextlib.suppress(WebhookVerificationError):
                    found.append(client.webhooks.unwrap(body, headers, secret).id)
        return found

    assert wait_until(lambda: told(mine.signing_secret), what="the endpoint's notice") == wait_until(
        lambda: told(WEBHOOK_SECRET), what="the notice of the settings' receiver"
    )
    (delivery,) = wait_until(lambda: list(hooks.deliveries(mine.id)), what="the delivery's log")
    assert (delivery.event_type, delivery.status_code) == ("fine_tuning.job.cancelled", 204)
    hooks.delete(mine.id)


def _start_long_job(client: Burnish) -> str:
    file = client.files.create(file=jsonl(rows(60)), filename="long.jsonl", purpose="fine-tune")
    asked: Any = {"n_epochs": LONG_EPOCHS, "batch_size": 2, "checkpoint_steps": 20, "lora": {"rank": 2, "alpha": 4}}
    return client.jobs.create(model="tiny", training_file=file.id, hyperparameters=asked).id


def test_a_cancelled_job_stops_its_trainer(server: Server, client: Burnish) -> None:
    job_id = _start_long_job(client)
    for event in client.jobs.stream(job_id):
        if event.type == "metrics":
            break
    trainers = server.find("-m", "trainer")
    assert trainers
    assert client.jobs.cancel(job_id).status == "cancelled"
    psutil.wait_procs(trainers, timeout=30)
    assert not [process for process in trainers if process.is_running()]
    assert client.jobs.retrieve(job_id).status == "cancelled"
    assert client.jobs.retrieve(job_id).fine_tuned_model is None


def test_openais_client_pauses_and_resumes_a_training(server: Server, client: Burnish) -> None:
    job_id = _start_long_job(client)
    wait_until(lambda: list(client.jobs.checkpoints(job_id)), what="the first checkpoint")
    trainers = server.find("-m", "trainer")
    with OpenAI(**json.loads((server.data / "client.json").read_text()), _strict_response_validation=True) as official:
        official.fine_tuning.jobs.pause(job_id)
        wait_until(lambda: client.jobs.retrieve(job_id).phase == "paused", what="the pause")
        assert not [process for process in trainers if process.is_running()], "a paused job holds no trainer"
        at = max(checkpoint.step_number for checkpoint in client.jobs.checkpoints(job_id))
        checkpoint = official.fine_tuning.jobs.checkpoints.list(job_id).data[0].fine_tuned_model_checkpoint
        answer = official.chat.completions.create(
            model=checkpoint, messages=[{"role": "user", "content": "好"}], max_tokens=3
        )
        assert answer.model == checkpoint, "a paused job's checkpoint can be chatted with"
        told = official.fine_tuning.jobs.list_events(job_id, limit=1).data[0].message
        assert told == f"The job is paused at the checkpoint of step {at}; resume it to continue"
        assert official.fine_tuning.jobs.resume(job_id).status in ("queued", "running")
        wait_until(lambda: _steps(client, job_id)[0] > at, what="the first step after the pause")
        steps = _steps(client, job_id)
        assert steps == list(range(steps[0], 0, -1)), "a step is missing, or was run twice"
        official.fine_tuning.jobs.cancel(job_id)


def _steps(client: Burnish, job_id: str) -> list[int]:
    """Return the steps that were reported, the last one first."""
    events = client.jobs.events(job_id, limit=1000)
    return [e.data["step"] for e in events if e.type == "metrics" and e.data and "train_loss" in e.data]


@pytest.mark.faults
def test_a_killed_workers_job_is_finished_from_its_checkpoint(server: Server, client: Burnish) -> None:
    job_id = _start_long_job(client)
    wait_until(lambda: list(client.jobs.checkpoints(job_id)), what="the first checkpoint")
    (worker,) = server.find("worker")
    trainers = server.find("-m", "trainer")
    worker.kill()
    psutil.wait_procs(trainers, timeout=30)
    assert not [process for process in trainers if process.is_running()], "the trainer outlived its worker"
    job = client.jobs.wait(job_id, timeout=300, raise_on_failure=False)
    assert job.status == "succeeded", server.log()
    assert job.model_dump()["attempt"] == 2
    assert Counter(_steps(client, job_id)) == Counter(range(1, LONG_STEPS + 1))
    messages = [event.message for event in client.jobs.events(job_id, limit=1000)]
    assert sum(message.startswith("New fine-tuned model created") for message in messages) == 1
