"""The client and its command against the real API: what scripted answers cannot show."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from burnish import Burnish
from tests.clients.test_cli import Run, run
from tests.clients.test_downloads import left_behind
from tests.fixtures.service import GOOD_JSONL, RunningApi, make_context, run_api

__all__ = ["run"]

pytestmark = pytest.mark.integration

WHOLE = """\
model: tiny
training_file: 训练.jsonl
validation_file: 训练.jsonl
method: supervised
hyperparameters:
  n_epochs: 2
  learning_rate_multiplier: 5e-1
  lora: {rank: 4}
suffix: desk
seed: 7
metadata: {团队: 客服}
priority: low
timeout: 3600
budget: {max_steps: 10}
resources: {gpus: 0, labels: [near]}
expires_after:
  checkpoints: {anchor: created_at, seconds: 86400}
  artifacts: {anchor: created_at, seconds: 604800}
keep_checkpoints: 2
integrations:
  - {type: wandb, wandb: {project: 客服, tags: [desk]}}
idempotency_key: once
"""


@pytest.fixture
def api(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningApi]:
    """The API, which the command finds, too."""
    (tmp_path / "data").mkdir()
    with run_api(make_context(tmp_path / "data")) as api:
        monkeypatch.setenv("BURNISH_BASE_URL", api.url)
        monkeypatch.setenv("BURNISH_API_KEY", api.key())
        yield api


def write(folder: Path, text: str) -> str:
    (folder / "训练.jsonl").write_bytes(GOOD_JSONL)
    (folder / "job.yaml").write_text(text, encoding="utf-8")
    return str(folder / "job.yaml")


def test_a_file_with_everything_makes_one_job(run: Run, api: RunningApi, tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    status, out, err = run("jobs", "create", "-f", path, "--epochs", "3")
    assert (status, err) == (0, "")
    with Burnish() as client:
        job = client.jobs.retrieve(out.strip())
    assert (job.model, job.metadata, job.timeout, job.budget) == ("tiny", {"团队": "客服"}, 3600, job.budget)
    assert job.method is not None
    hyperparameters = job.method["supervised"]["hyperparameters"]
    assert (hyperparameters["n_epochs"], hyperparameters["learning_rate_multiplier"]) == (3, 0.5)
    assert job.expires_after is not None
    assert job.expires_after["artifacts"]["seconds"] == 604800
    assert job.keep_checkpoints == 2
    assert job.integrations is not None
    assert job.integrations[0]["wandb"]["project"] == "客服"
    # The uploads are other files, so the order is another one: the key belongs to the first.
    status, _, err = run("jobs", "create", "-f", path)
    assert (status, "dempotency" in err) == (5, True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model: tiny\ntraining_file: 训练.jsonl\nbudget:\n  max_steps: -1\n", 4),
        ("training_file: 训练.jsonl\n\nmodel: none-such\n", 3),
        ("model: tiny\ntraining_file: 训练.jsonl\nhyperparameters:\n  n_epochs: 2\n  lora:\n    rank: -4\n", 6),
        ("model: tiny\ntraining_file: 训练.jsonl\nhyperparameters:\n  none_such: 2\n", 4),
        ("model: tiny\ntraining_file: 训练.jsonl\nsuffix: a/b\n", 3),
    ],
)
def test_the_servers_refusals_are_reported_with_their_line(
    run: Run, api: RunningApi, tmp_path: Path, text: str, line: int
) -> None:
    status, out, err = run("jobs", "create", "-f", write(tmp_path, text))
    assert (status, out) == (5, "")
    assert f"(job.yaml, line {line}) (request req_" in err


def test_a_download_resumes_with_the_servers_ranges(run: Run, api: RunningApi, tmp_path: Path) -> None:
    row = '{"messages": [{"role": "user", "content": "%d"}, {"role": "assistant", "content": "好"}]}\n'
    body = "".join(row % random.Random(n).getrandbits(400) for n in range(2000)).encode()
    target = tmp_path / "rows.jsonl"
    with Burnish() as client:
        file = client.files.create(file=body, filename="rows.jsonl")
        told: list[int] = []
        left_behind(target, body, body[:100_000])
        client.files.download(file.id, target, on_progress=lambda done, _: told.append(done))
        assert target.read_bytes() == body
        assert told[0] > 100_000
        other = body + b"\n"
        left_behind(target, other, other[:100_000])
        client.files.download(file.id, target)
    assert target.read_bytes() == body
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "rows.jsonl"]
