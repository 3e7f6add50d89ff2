"""A trained model as others take it: exported by real processes, one of them killed on the way, and loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish import Burnish
from burnish.cli import main
from burnish.schemas import Job
from tests.fixtures.processes import Server, jsonl, rows, running_server, wait_until
from tests.fixtures.service import write_catalog

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Generator[Server, None, None]:
    folder = tmp_path_factory.mktemp("up")
    catalog = str(write_catalog(folder, tiny_base))
    with running_server(folder / "data", BURNISH_CATALOG=catalog, BURNISH_STOP_SECONDS="10") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Generator[Burnish, None, None]:
    with server.client() as made:
        yield made


@pytest.fixture(scope="module")
def job(client: Burnish) -> Job:
    """A model that differs clearly from its base; of its checkpoints two are left: the best is the last."""
    file = client.files.create(file=jsonl(rows(24)), filename="训练.jsonl", purpose="fine-tune").id
    hyperparameters: dict[str, Any] = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 20}
    hour = {"anchor": "created_at", "seconds": 3600}
    made = client.jobs.create(
        model="tiny",
        training_file=file,
        validation_file=file,
        hyperparameters={**hyperparameters, "checkpoint_steps": 3, "eval_steps": 3},
        suffix="desk",
        seed=7,
        keep_checkpoints=1,
        expires_after={"checkpoints": hour},
    )
    return client.jobs.wait(made.id, timeout=300)


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**tokenizer("你好, hello", return_tensors="pt")).logits.float()


def test_exports_survive_their_worker_and_load_elsewhere(
    server: Server,
    client: Burnish,
    job: Job,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = job.fine_tuned_model
    assert name is not None
    export = client.models.exports.create(name, format="gguf", precision="f16")
    wait_until(lambda: server.find("-m", "trainer.programs.export"), what="the export to begin")
    for worker in server.find("worker"):
        worker.kill()
    wait_until(
        lambda: not server.find("-m", "trainer.programs.export"), what="the program to end with its worker", seconds=30
    )
    assert client.models.exports.retrieve(name, export.id).status == "running"
    export = client.models.exports.wait(name, export.id, timeout=200)
    gguf = client.models.exports.download(name, export.id, tmp_path)
    assert gguf.name == f"{name.replace(':', '-')}-f16.gguf"
    found = [path for path in (server.data / "blobs" / "jobs").rglob("*.gguf") if path.is_file()]
    assert len(found) == 1, "published once"

    credentials = json.loads((server.data / "client.json").read_text())
    monkeypatch.setenv("BURNISH_BASE_URL", credentials["base_url"])
    monkeypatch.setenv("BURNISH_API_KEY", credentials["api_key"])
    asked = ["models", "export", name, "--format", "merged", "--precision", "f32", "--extract"]
    assert main([*asked, "-o", str(tmp_path / "merged")]) == 0, capsys.readouterr().err
    adapter = client.jobs.download_adapter(job.id, tmp_path / "adapter", extract=True)

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    plain = logits(base, tokenizer)
    wanted = logits(PeftModel.from_pretrained(base, adapter), tokenizer)
    assert float((wanted - plain).abs().max()) > 0.05, "the training changed something"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert float((logits(merged, AutoTokenizer.from_pretrained(tmp_path / "merged")) - wanted).abs().max()) < 1e-4
    read = AutoModelForCausalLM.from_pretrained(str(tmp_path), gguf_file=gguf.name, dtype=torch.float32)
    own = AutoTokenizer.from_pretrained(str(tmp_path), gguf_file=gguf.name)
    assert float((logits(read, own) - wanted).abs().max()) < 0.02
    chat = [{"role": "user", "content": "你好"}]
    assert own.apply_chat_template(chat, tokenize=False) == tokenizer.apply_chat_template(chat, tokenize=False)


def test_a_checkpoint_is_exported_and_goes_with_its_job(
    server: Server, client: Burnish, job: Job, tmp_path: Path
) -> None:
    def kept() -> list[int]:
        return [checkpoint.step_number for checkpoint in client.jobs.checkpoints(job.id)]

    steps = wait_until(lambda: found if len(found := kept()) <= 2 else None, what="older checkpoints to go")
    assert steps[0] == 12
    checkpoint = next(iter(client.jobs.checkpoints(job.id)))
    assert checkpoint.expires_at == pytest.approx(checkpoint.created_at + 3600, abs=2)
    name = checkpoint.fine_tuned_model_checkpoint
    export = client.models.exports.create_and_wait(name, format="adapter", timeout=120)
    folder = client.models.exports.download(name, export.id, tmp_path / "adapter", extract=True)
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= {p.name for p in folder.iterdir()}
    client.jobs.delete(job.id)
    home = server.data / "blobs" / "jobs" / job.id
    wait_until(lambda: not any(files for _, _, files in os.walk(home)), what="the job's bytes to go", seconds=150)
