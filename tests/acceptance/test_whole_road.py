"""The whole road through the real service: five jobs that are ordered at once and go on from one another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish import Burnish, Job
from tests.fixtures.processes import Server, clean_environment, running_server
from tests.fixtures.service import write_catalog

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Generator[Server]:
    """One service for both walks; each looks at its own five jobs alone."""
    folder = tmp_path_factory.mktemp("road")
    with running_server(folder / "data", BURNISH_CATALOG=str(write_catalog(folder, tiny_base))) as running:
        yield running


def walk(server: Server, output: Path, *arguments: str) -> dict[str, Job]:
    """Run the script of the documentation; return its jobs by their suffixes."""
    environment = clean_environment(BURNISH_DATA=str(server.data), COLUMNS="160")
    command = [sys.executable, "-m", "examples.whole_road.road", "--output", str(output), *arguments]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr + server.log()
    assert "The whole road" in ran.stdout
    with server.client() as client:
        found = list(client.jobs.list(limit=5))[:5]
    assert [job.status for job in found] == ["succeeded"] * 5
    return {str(job.fine_tuned_model).split(":")[3].removeprefix("road-"): job for job in found}


def report_of(client: Burnish, job: Job) -> dict[str, Any]:
    return client.jobs.report(job.id)


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**tokenizer("绿茶在哪里? Where is it?", return_tensors="pt")).logits


def test_from_a_base_of_the_catalog(server: Server, tmp_path: Path, tiny_base: Path) -> None:
    jobs = walk(server, tmp_path / "out", "--model", "tiny")
    with server.client() as client:
        reports = {name: report_of(client, job) for name, job in jobs.items()}
    assert [entry["method"] for entry in jobs["ppo"].lineage] == ["pretraining", "supervised"]
    assert [entry["job_id"] for entry in jobs["dpo"].lineage] == [jobs["text"].id, jobs["chats"].id]
    assert {job.base_model for job in jobs.values()} == {"tiny"}
    assert reports["ppo"]["reward"]["job_id"] == jobs["reward"].id
    assert reports["ppo"]["lineage"] == jobs["ppo"].lineage
    assert not [line for report in reports.values() for line in report["warnings"] if "two base models" in line]
    headlines = {name: report["comparison"][0]["name"] for name, report in reports.items()}
    assert headlines == {
        "text": "loss",
        "chats": "loss",
        "reward": "pair_accuracy",
        "ppo": "reward",
        "dpo": "implicit_accuracy",
    }
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    plain = logits(base, tokenizer)
    for name in ("text", "chats", "ppo", "dpo"):
        adapted = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tiny_base), str(tmp_path / "out" / name)
        )
        assert not torch.equal(logits(adapted, tokenizer), plain), "one adapter, loaded alone, is the whole chain"
    # What the DPO job measures its start by is the supervised job's result: nothing of the chain was lost.
    assert reports["dpo"]["start"]["sha256"] == reports["ppo"]["start"]["sha256"]
    manifest = json.loads((tmp_path / "out" / "chats" / "manifest.json").read_text())
    weights = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    assert reports["dpo"]["start"]["sha256"] == weights["adapter_model.safetensors"]


def test_from_scratch(server: Server, tmp_path: Path) -> None:
    jobs = walk(server, tmp_path / "out", "--from-scratch")
    whole = jobs["text"].fine_tuned_model
    assert whole is not None
    assert jobs["text"].base_model == "from-scratch"
    assert {jobs[name].base_model for name in ("chats", "reward", "ppo", "dpo")} == {whole}
    base = tmp_path / "out" / "text"
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "out" / "ppo"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "ppo")
    assert torch.isfinite(logits(adapted, tokenizer)).all()
    assert os.listdir(server.data / "work") == []
