from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from burnish import config
from burnish.cli import main
from tests.clients.scripted import SSE, Answer, Server, a_file, a_job, a_page, an_event, frame, refusal
from tests.clients.test_jobs import FILES, archive, offered

JOBS = "/v1/fine_tuning/jobs"
JOB = f"{JOBS}/ftjob-1"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command; gives the exit status, stdout and stderr."""
    monkeypatch.setenv("BURNISH_BASE_URL", server.url)
    monkeypatch.setenv("BURNISH_API_KEY", "bk-test")

    def run(*arguments: str) -> tuple[int, str, str]:
        return (int(main(list(arguments))), *capfd.readouterr())

    return run


def test_files(run: Run, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "数据.jsonl"
    path.write_text("你好", encoding="utf-8")
    server.on("POST", "/v1/files", Answer(a_file()))
    assert run("files", "upload", str(path)) == (0, "file-1\n", "")
    assert json.loads(run("files", "upload", str(path), "--json")[1])["filename"] == "数据.jsonl"
    server.on("GET", "/v1/files", Answer(a_page([a_file(1), a_file(2)])))
    status, out, _ = run("files", "list")
    assert status == 0
    assert "file-2" in out
    assert "数据.jsonl" in out
    assert [item["id"] for item in json.loads(run("files", "list", "--json", "--limit", "1")[1])] == ["file-1"]
    server.on("GET", "/v1/files/file-1", Answer(a_file()))
    assert "filename: 数据.jsonl" in run("files", "get", "file-1")[1]
    server.on("GET", "/v1/files/file-1/content", Answer("内容".encode()))
    assert run("files", "content", "file-1")[1] == "内容"
    assert run("files", "content", "file-1", "-o", "out.txt")[1] == "out.txt\n"
    assert Path("out.txt").read_text(encoding="utf-8") == "内容"
    server.on("DELETE", "/v1/files/file-1", Answer({"id": "file-1", "object": "file", "deleted": True}))
    assert run("files", "delete", "file-1") == (0, "Deleted file-1.\n", "")


def test_an_interrupted_upload_resumes(run: Run, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "大.jsonl"
    path.write_bytes(b"{}\n")
    facts = {
        "id": "upload_1",
        "created_at": 1,
        "expires_at": 2,
        "filename": path.name,
        "purpose": "fine-tune",
        "bytes": 3,
    }
    has = {"id": "part_7", "created_at": 1, "upload_id": "upload_1", "bytes": 3, "sha256": sha256(b"{}\n").hexdigest()}
    server.on("GET", "/v1/uploads/upload_1", Answer({**facts, "status": "pending", "parts": [has]}))
    server.on("POST", "/v1/uploads/upload_1/complete", Answer({**facts, "status": "completed", "file": a_file()}))
    assert run("files", "upload", str(path), "--resume", "upload_1")[1] == "file-1\n"
    assert server.seen[-1].json() == {"part_ids": ["part_7"]}


def test_create_uploads_paths_and_sends_the_options(run: Run, server: Server, tmp_path: Path) -> None:
    rows = tmp_path / "训练.jsonl"
    rows.write_text("{}")
    server.on("POST", "/v1/files", Answer(a_file(9)))
    server.on("POST", JOBS, Answer(a_job("queued")))
    options = (
        f"--training-file {rows} --validation-file file-2 --suffix s --seed 3 --metadata team=甲 --epochs 2 "
        "--batch-size auto --learning-rate-multiplier 0.5 --lora-rank 8 --lora-alpha 16 --lora-target-modules q,v"
    )
    assert run("jobs", "create", "--model", "tiny", *options.split()) == (0, "ftjob-1\n", "")
    sent = server.seen[-1].json()
    hyperparameters = sent.pop("method")["supervised"]["hyperparameters"]
    assert sent == {
        "model": "tiny",
        "training_file": "file-9",
        "validation_file": "file-2",
        "suffix": "s",
        "seed": 3,
        "metadata": {"team": "甲"},
    }
    assert hyperparameters == {
        "n_epochs": 2,
        "batch_size": "auto",
        "learning_rate_multiplier": 0.5,
        "lora": {"rank": 8, "alpha": 16.0, "target_modules": ["q", "v"]},
    }


def test_a_methods_own_hyperparameters_are_set_by_name(run: Run, server: Server) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    options = "--method ppo --epochs 2 --lora-rank 8 --set reward.model=ftjob-9 --set kl_coef=0.1"
    options += " --set lora.use_dora=true"
    create = ("jobs", "create", "--model", "ftjob-8", "--training-file", "file-1")
    assert run(*create, *options.split(), "--set", "note=词 a=b")[0] == 0
    assert server.seen[-1].json()["method"] == {
        "type": "ppo",
        "ppo": {
            "hyperparameters": {
                "n_epochs": 2,
                "lora": {"rank": 8, "use_dora": True},
                "reward": {"model": "ftjob-9"},
                "kl_coef": 0.1,
                "note": "词 a=b",
            }
        },
    }


def test_create_and_watch(run: Run, server: Server) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    metrics = an_event(2, type="metrics", data={"step": 1, "total_steps": 1, "train_loss": 2.0})
    body = [frame(an_event(1)), frame(metrics), frame(a_job(trained_tokens=1234), "done")]
    server.on("GET", f"{JOB}/events", Answer(body, headers=SSE))
    status, out, err = run("jobs", "create", "--model", "tiny", "--training-file", "file-1", "--watch")
    assert (status, out) == (0, "ftjob-1 succeeded: ft:tiny:org::1, 1,234 tokens trained\n")
    assert err.splitlines() == ["第1步", "step 1/1 · loss 2.000"]
    status, out, err = run("jobs", "watch", "ftjob-1", "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["ftevent-1", "ftevent-2", "ftjob-1"]
    assert (status, err) == (0, "")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_failed_job_is_status_3(run: Run, server: Server, options: list[str]) -> None:
    job = a_job("failed", error={"code": "x", "message": "第3行坏了", "param": None})
    server.on("GET", f"{JOB}/events", Answer([frame(job, "done")], headers=SSE))
    status, _, err = run("jobs", "watch", "ftjob-1", *options)
    assert (status, err) == (3, "Error: Job ftjob-1 failed: 第3行坏了\n")


def test_reading_jobs(run: Run, server: Server) -> None:
    server.on("GET", JOBS, Answer(a_page([a_job()])))
    assert "ft:tiny:org::1" in run("jobs", "list")[1]
    server.on("GET", JOB, Answer(a_job()))
    assert json.loads(run("jobs", "get", "ftjob-1", "--json")[1])["a_field_of_the_future"] == {"x": 1}
    assert "hyperparameters.n_epochs: 1" in run("jobs", "get", "ftjob-1")[1]
    server.on("GET", f"{JOB}/events", Answer(a_page([an_event(1)])))
    assert "第1步" in run("jobs", "events", "ftjob-1")[1]
    server.on("GET", f"{JOB}/checkpoints", Answer(a_page([])))
    assert run("jobs", "checkpoints", "ftjob-1", "--json")[1] == "[]\n"
    server.on("POST", f"{JOB}/cancel", Answer(a_job("cancelled")))
    assert run("jobs", "cancel", "ftjob-1")[1] == "ftjob-1: cancelled\n"
    server.on("POST", f"{JOB}/pause", Answer(a_job("running") | {"phase": "running", "pause_requested": True}))
    assert run("jobs", "pause", "ftjob-1")[1] == "ftjob-1: running, to be paused at its next checkpoint\n"
    server.on("DELETE", JOB, Answer({"id": "ftjob-1", "object": "fine_tuning.job", "deleted": True}))
    assert run("jobs", "delete", "ftjob-1", "--yes")[1] == "ftjob-1: deleted\n"
    assert run("jobs", "delete", "ftjob-1")[0] == 1, "nobody said yes"
    server.on("POST", f"{JOB}/resume", Answer(a_job("queued") | {"phase": "queued"}))
    assert run("jobs", "resume", "ftjob-1")[1] == "ftjob-1: queued\n"
    server.on("GET", "/v1/models", Answer(a_page([{"id": "tiny", "object": "model", "owned_by": "我"}])))
    assert "tiny" in run("models", "list")[1]


def test_report_and_download(run: Run, server: Server) -> None:
    def report(seen: object) -> Answer:
        html = seen.headers["accept"] == "text/html"
        return Answer("<p>报告</p>".encode()) if html else Answer({"结果": {"loss": 1.5}, "rows": [{}, {}]})

    server.on("GET", f"{JOB}/report", report)
    assert run("jobs", "report", "ftjob-1")[1] == "结果.loss: 1.5\nrows: 2 items\n"
    assert json.loads(run("jobs", "report", "ftjob-1", "--json")[1])["rows"] == [{}, {}]
    assert run("jobs", "report", "ftjob-1", "-o", "r.html")[1] == "r.html\n"
    assert Path("r.html").read_text(encoding="utf-8") == "<p>报告</p>"
    server.on("GET", f"{JOB}/adapter", offered(archive(FILES)))
    assert run("jobs", "download", "ftjob-1")[1] == "ftjob-1-adapter.zip\n"
    assert run("jobs", "download", "ftjob-1", "--extract")[0] == 0
    assert Path("ftjob-1-adapter/adapter_config.json").is_file()
    status, _, err = run("jobs", "download", "ftjob-1", "--extract")
    assert (status, "new or empty" in err) == (1, True)


@pytest.mark.slow
def test_a_whole_model_is_downloaded_if_there_is_no_adapter(run: Run, server: Server) -> None:
    server.on("GET", f"{JOB}/adapter", refusal(409, "It leaves a model.", code="no_adapter"))
    server.on("GET", f"{JOB}/model", offered(archive(FILES)))
    assert run("jobs", "download", "ftjob-1")[1] == "ftjob-1-model.zip\n"
    assert run("jobs", "download", "ftjob-1", "--extract")[0] == 0
    assert Path("ftjob-1-model/adapter_config.json").is_file()
    server.on("GET", f"{JOB}/adapter", refusal(409, "Not yet.", code="not_ready"))
    assert "Not yet." in run("jobs", "download", "ftjob-1")[2]


def test_a_refusal_is_a_sentence_with_the_request(run: Run, server: Server) -> None:
    server.on("GET", JOB, refusal(404, "No job ftjob-1."))
    assert run("jobs", "get", "ftjob-1") == (5, "", "Error: No job ftjob-1. (request req_7)\n")
    problems = [{"line": 3, "reason": "不是JSON"}, {"line": None, "reason": "no rows"}]
    server.on("GET", JOB, refusal(400, "The dataset is malformed.", problems=problems))
    assert run("jobs", "get", "ftjob-1")[2].splitlines() == [
        "Error: The dataset is malformed.",
        "  line 3: 不是JSON",
        "  no rows",
        "(request req_7)",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["jobs", "create", "--model", "tiny"],
        ["jobs", "create", "--model", "tiny", "--training-file", "missing.jsonl"],
        ["jobs", "create", "--model", "tiny", "--training-file", "file-1", "--epochs", "two"],
        ["jobs", "create", "--model", "tiny", "--training-file", "file-1", "--metadata", "x"],
        ["jobs", "create", "--model", "tiny", "--training-file", "file-1", "--set", "beta"],
        ["jobs", "create", "--model", "tiny", "--training-file", "file-1", "--set", "a..b=1"],
        ["jobs", "create", "--model", "tiny", "--training-file", "file-1", "--epochs", "1", "--set", "n_epochs.x=1"],
        ["files", "upload", "missing.jsonl"],
        ["files", "list", "--limit", "0"],
    ],
)
def test_wrong_usage_is_status_2_and_sends_nothing(run: Run, server: Server, arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "Error: " in err
    assert server.seen == []


def test_login_checks_before_it_writes(run: Run, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on("GET", "/v1/models", [refusal(401, "Unknown key."), Answer(a_page([]))])
    assert run("login")[0] == 5
    assert not config.user_file().exists()
    status, out, _ = run("login", "--base-url", server.url.removesuffix("/v1"), "--api-key", "bk-new")
    assert (status, out) == (0, f"Wrote {config.user_file()}.\n")
    assert stat.S_IMODE(config.user_file().stat().st_mode) == 0o600
    monkeypatch.delenv("BURNISH_BASE_URL")
    monkeypatch.delenv("BURNISH_API_KEY")
    assert config.resolve_settings() == (server.url, "bk-new")


def test_without_settings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BURNISH_BASE_URL")
    status, out, err = run("models", "list")
    assert (status, out) == (1, "")
    assert "burnish login" in err


def process(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "burnish", *arguments],
        stdin=None if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BURNISH_API_KEY": "k", **environment},
    )


@pytest.mark.slow
def test_a_missing_server_causes_no_traceback() -> None:
    with process("models", "list", BURNISH_BASE_URL="http://127.0.0.1:9/v1") as child:
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (6, "")
    assert err.startswith("Error: Cannot reach http://127.0.0.1:9/v1: ")
    assert len(err.splitlines()) == 1


def interrupt(child: subprocess.Popen[str]) -> tuple[str, str]:
    """Press Ctrl-C as a person does, again where the first one met Python inside a finaliser, which swallows it."""
    for _ in range(3):
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.communicate(timeout=20)
    raise AssertionError("three interrupts did not end it")


def test_interrupted_is_status_130(server: Server) -> None:
    def body() -> object:
        yield frame(an_event(1))
        yield from server.silence()

    server.on("GET", f"{JOB}/events", lambda _: Answer(body(), headers=SSE))
    with process("jobs", "watch", "ftjob-1", BURNISH_BASE_URL=server.url) as child:
        assert child.stderr is not None
        assert child.stderr.readline() == "第1步\n"
        out, err = interrupt(child)
    assert (child.returncode, out) == (130, "")
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_reader_that_leaves_causes_no_traceback(server: Server) -> None:
    server.on("GET", "/v1/files", Answer(a_page([a_file(number) for number in range(3000)])))
    with process("files", "list", "--limit", "3000", "--json", BURNISH_BASE_URL=server.url) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr is not None
        assert "Traceback" not in child.stderr.read()
