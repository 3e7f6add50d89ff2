"""The trainer reads JSON lines or text, whatever was uploaded."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from service.tables.jobs import JobState
from service.worker import run
from tests.fixtures.packed import PACKINGS, zstd, zstd_bomb
from tests.service.worker.world import World

ROWS = [
    {"messages": [{"role": "user", "content": f"{number}: 你好"}, {"role": "assistant", "content": "您好 \\ 😀\n"}]}
    for number in range(50)
]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What lies in the trainer's data folder when its folder is laid out, and its job.json."""
    found: dict[str, bytes] = {}
    real = run.stage_job

    def watched(*arguments: Any, folder: Path, **named: Any) -> Any:
        spec = real(*arguments, folder=folder, **named)
        found.update({path.name: path.read_bytes() for path in (folder / "data").iterdir()})
        found["job.json"] = (folder / "job.json").read_bytes()
        return spec

    monkeypatch.setattr(run, "stage_job", watched)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["gzip", "zstd", "parquet"])
def test_a_packed_dataset_is_laid_out_as_lines(world: World, seen: dict[str, bytes], packing: str) -> None:
    data = PACKINGS[packing](ROWS)
    job_id = world.job(training_file=world.file(data, "训练.jsonl", packing=packing), validation_file=None)
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
    assert set(seen) == {"train.jsonl", "job.json"}
    assert [json.loads(line) for line in seen["train.jsonl"].splitlines()] == ROWS
    spec = json.loads(seen["job.json"])
    assert spec["training"]["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.slow
def test_packed_text_is_laid_out_as_text(world: World, seen: dict[str, bytes]) -> None:
    text = "从前有座山\r\nقصة 😀\n".encode()
    training = world.file(gzip.compress(text), "故事.txt.gz", packing="gzip")
    job_id = world.job(training_file=training, validation_file=world.file(zstd.compress(text), "b.txt", packing="zstd"))
    world.run(job_id)
    assert (seen["train.txt"], seen["validation.txt"]) == (text, text)


def test_a_file_that_cannot_be_unpacked_ends_the_job_with_a_sentence(world: World) -> None:
    job_id = world.job(training_file=world.file(zstd_bomb(), "a.jsonl", packing="zstd"))
    world.run(job_id)
    job = world.row(job_id)
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("file_unreadable", "training_file")
    assert "a.jsonl" in job.error["message"]
    assert "more than 200 times" in job.error["message"]
