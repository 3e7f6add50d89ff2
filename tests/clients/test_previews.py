from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish import BadRequestError
from burnish.cli import main
from tests.clients.scripted import Answer, Driver, Server, a_file, a_job, refusal

JOBS = "/v1/fine_tuning/jobs"
PREVIEW = f"{JOBS}/preview"
Run = Callable[..., tuple[int, str, str]]


def tokens(*texts: tuple[str, bool]) -> list[dict[str, Any]]:
    return [{"id": number, "text": text, "trained": trained} for number, (text, trained) in enumerate(texts)]


def a_preview(**more: Any) -> dict[str, Any]:
    data = {"rows": 1200, "used": 1199, "tokens": 34567, "trained_tokens": 8000, "cut": 2, "cut_lines": [3, 9]}
    row = tokens(("user\n天", False), ("气?\n", False), ("晴", True), ("\x1b[31m天", True), ("\n", False))
    return {
        "object": "fine_tuning.job.preview",
        "model": "tiny",
        "base_model": "tiny",
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        "training": {"filename": "数据.jsonl", "dropped": 1, "dropped_lines": [7], **data},
        "validation": None,
        "steps": 75,
        "trained_tokens": 69134,
        "trained_tokens_exact": True,
        "ended_by": None,
        "warnings": ["数据.jsonl: 2 row(s) were cut."],
        "estimates": {
            "memory": {"bytes": 3_200_000_000, "parts": {}, "method": "By a formula."},
            "time": {"seconds": 600.0, "tokens_per_second": 115.2, "earlier_jobs": 3, "method": "By 3 jobs."},
        },
        "queue": {"position": 3, "reason": "workers_busy", "message": "2 queued job(s) are ahead of it."},
        "sample": [{"line": 1, "part": "conversation", "tokens": row, "left_out": 4}],
        "a_field_of_the_future": 1,
        **more,
    }


ORDER: dict[str, Any] = {
    "lora": {"rank": 4},
    "priority": "high",
    "timeout": 60,
    "budget": {"max_steps": 9},
    "resources": {"gpus": 1, "labels": ["a"]},
}


def test_the_options_of_an_order_are_sent(driver: Driver, server: Server) -> None:
    server.on("POST", JOBS, Answer(a_job("queued", queue=a_preview()["queue"], priority=10)))
    job = driver.call("jobs.create", model="tiny", training_file="file-1", **ORDER)
    assert server.seen[0].json() == {"model": "tiny", "training_file": "file-1", **ORDER}
    assert (job.queue.position, job.priority, job.budget) == (3, 10, None)


def test_a_preview_is_requested(driver: Driver, server: Server) -> None:
    server.on("POST", PREVIEW, Answer(a_preview()))
    found = driver.call("jobs.preview", rows=2, model="tiny", training_file="file-1", method="dpo", **ORDER)
    sent = server.seen[0]
    assert sent.query == {"rows": ["2"]}
    assert sent.json() == {
        "model": "tiny",
        "training_file": "file-1",
        "method": {"type": "dpo", "dpo": {"hyperparameters": {}}},
        **ORDER,
    }
    assert "idempotency-key" not in sent.headers
    assert "".join(token.text for token in found.sample[0].tokens if token.trained) == "晴\x1b[31m天"
    assert (found.training.dropped_lines, found.estimates.time.earlier_jobs) == ([7], 3)
    driver.call("jobs.preview", model="tiny", training_file="file-1")
    assert server.seen[1].query == {}


def test_what_would_fail_is_raised(driver: Driver, server: Server) -> None:
    problems = [{"line": 3, "reason": "坏"}]
    server.on("POST", PREVIEW, refusal(400, "第3行坏了", code="invalid_training_file", problems=problems))
    with pytest.raises(BadRequestError, match="第3行坏了") as caught:
        driver.call("jobs.preview", model="tiny", training_file="file-1")
    assert [problem.line for problem in caught.value.problems] == [3]


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("BURNISH_BASE_URL", server.url)
    monkeypatch.setenv("BURNISH_API_KEY", "bk-test")
    return lambda *arguments: (int(main(list(arguments))), *capfd.readouterr())


FLAGS = (
    "--priority high --timeout 60 --max-steps 9 --max-tokens 1000 --max-gpu-minutes 1.5 "
    "--gpus 1 --gpu-memory-gb 24 --label a --label zone=eu"
)


@pytest.mark.parametrize("command", ["create", "preview"])
def test_the_flags_of_an_order(run: Run, server: Server, command: str, tmp_path: Path) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    server.on("POST", PREVIEW, Answer(a_preview()))
    server.on("POST", "/v1/files", Answer(a_file(9)))
    path = tmp_path / "数据.jsonl"
    path.write_text("{}", encoding="utf-8")
    status, out, err = run("jobs", command, "--model", "tiny", "--training-file", str(path), *FLAGS.split())
    assert (status, err) == (0, "")
    assert out
    assert server.seen[-1].json() == {
        "model": "tiny",
        "training_file": "file-9",
        "priority": "high",
        "timeout": 60,
        "budget": {"max_steps": 9, "max_tokens": 1000, "max_gpu_minutes": 1.5},
        "resources": {"gpus": 1, "gpu_memory_gb": 24.0, "labels": ["a", "zone=eu"]},
    }
    bad = run("jobs", command, "--model", "tiny", "--training-file", "file-1", "--priority", "urgent")
    assert (bad[0], "neither low, normal, high" in bad[2]) == (2, True)


def test_a_preview_is_readable(run: Run, server: Server) -> None:
    server.on("POST", PREVIEW, Answer(a_preview()))
    status, out, err = run("jobs", "preview", "--model", "tiny", "--training-file", "file-1", "--rows", "1")
    assert (status, err, server.seen[-1].query) == (0, "", {"rows": ["1"], "wait": ["5"]})
    assert "training file: file-1" in out
    assert "2 (line 3, 9)" in out
    assert "1 (line 7)" in out
    assert "trained tokens: 69,134" in out
    assert "time: 10 min. By 3 jobs." in out
    assert "memory: 3.2 GB. By a formula." in out
    assert "warning: 数据.jsonl: 2 row(s) were cut." in out
    assert "line 1, conversation, 9 tokens" in out
    assert "user\n天气?\n⟦晴" in out
    assert "天⟧\n … 4 more tokens" in out
    assert "\x1b" not in out
    more = run("jobs", "preview", "--model", "tiny", "--training-file", "file-1", "--json")
    assert json.loads(more[1])["a_field_of_the_future"] == 1


def test_what_takes_long_is_shown_until_the_answer_is_there(run: Run, server: Server) -> None:
    busy = "The preview was not ready within 5 seconds. {}. Send the same request again: it waits for the same answer."
    notes = ["Preparing the base model 甲 on this worker (first use)", "A worker reads and counts the rows"]
    refusals = [refusal(503, busy.format(note), code="preview_timeout") for note in (notes[0], notes[0], notes[1])]
    for answer in refusals:
        answer.headers["x-should-retry"] = "false"
    values = {"n_epochs": 3, "batch_size": 8, "learning_rate": 0.0002, "gradient_accumulation_steps": 2}
    method = {"type": "dpo", "dpo": {"hyperparameters": values}}
    server.on("POST", PREVIEW, [*refusals, Answer(a_preview(method=method, steps=1075))])
    status, out, err = run("jobs", "preview", "--model", "tiny", "--training-file", "file-1")
    assert (status, err.splitlines()) == (0, [f"{note} …" for note in notes])
    for line in ("epochs: 3", "batch size: 8, gradients of 2 batches a step", "learning rate: 0.0002", "steps: 1,075"):
        assert line in out
