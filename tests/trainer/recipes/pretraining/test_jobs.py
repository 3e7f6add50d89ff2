"""Pre-training jobs from their folder to their result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.recipes.pretraining.jobs import SMALL, TEXT, documents, lay_out, train
from tests.trainer.workdirs import events_of
from trainer.contract.events import FILE_NAME, StepEvent
from trainer.contract.result import ADAPTER_FOLDER, MODEL_FOLDER, ExitCode, read_manifest
from trainer.run import run_training_job

pytestmark = pytest.mark.integration

HELD_OUT = TEXT[-900:].encode()
NEW = {"architecture": SMALL, "tokenizer": "byte", "batch_size": 4, "learning_rate": 0.003, "max_steps": 20}


class StopAt:
    """Stops a run once its event file tells of a step."""

    raised = False

    def __init__(self, workdir: Path, step: int) -> None:
        self.events, self.mark = workdir / FILE_NAME, f'"step":{step},'.encode()

    def __call__(self) -> bool:
        self.raised = self.raised or self.mark in self.events.read_bytes()
        return self.raised


def test_a_new_model_of_characters(tmp_path: Path) -> None:
    workdir = lay_out(tmp_path / "w", {**NEW, "tokenizer": "char"}, validation=HELD_OUT)
    report = train(workdir)
    folder = workdir / MODEL_FOLDER
    assert report["kind"] == read_manifest(workdir).facts["kind"] == "model"
    assert report["verdict"]["outcome"] == "better"
    assert report["counts"]["trainable_parameters"] == report["counts"]["total_parameters"]
    assert report["counts"]["tokens_per_epoch"] == len(TEXT) + 1
    assert report["comparison"][0]["weight"] == len(HELD_OUT.decode()) + 1
    assert report["hyperparameters"]["total_steps"] == 20
    assert len(report["samples"]) == 2
    assert report["samples"][0]["expected"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXT[-900:-880], return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, 20, len(tokenizer))
    assert tokenizer.decode(ids[0]) == TEXT[-900:-880]
    assert read_manifest(folder).verify_files(folder) == []
    info = json.loads((folder / "base.json").read_text())
    assert (info["context_length"], info["source"]["job"]) == (32, "ftjob-text")
    assert str(tmp_path) not in json.dumps(info) + (folder / "README.md").read_text()


def test_a_result_is_a_base_for_conversations(tmp_path: Path) -> None:
    from tests.trainer.workdirs import jsonl
    from tests.trainer.workdirs import lay_out as lay_out_chat

    rates = {**NEW, "architecture": {**SMALL, "context": 128}, "max_length": 32, "max_steps": 2}
    workdir = lay_out(tmp_path / "w", rates, sample_count=0)
    train(workdir)
    rows = [{"messages": [{"role": "user", "content": "天?"}, {"role": "assistant", "content": "好"}]}] * 4
    later = lay_out_chat(tmp_path / "later", workdir / MODEL_FOLDER, jsonl(rows), None, {"n_epochs": 1}, sample_count=0)
    assert train(later)["kind"] == "adapter"


def test_new_bpe_model_on_documents_kept_apart(tmp_path: Path) -> None:
    texts = documents([line for line in TEXT.splitlines() if line])
    hyperparameters = {**NEW, "tokenizer": {"type": "bpe", "vocabulary": 400}, "n_epochs": 1}
    report = train(lay_out(tmp_path / "w", hyperparameters, training=texts, validation=texts, suffix=".jsonl"))
    assert report["training"]["rows"] == 120
    assert report["hyperparameters"]["settings"]["tokenizer"] == {"type": "bpe", "vocabulary": 400}
    across = {**hyperparameters, "attend_across_documents": True}
    other = train(lay_out(tmp_path / "across", across, training=texts, validation=texts, suffix=".jsonl"))
    assert other["comparison"][0]["base"]["value"] != report["comparison"][0]["base"]["value"]


def test_the_base_s_tokenizer_for_a_new_model(tmp_path: Path, tiny_base: Path) -> None:
    workdir = lay_out(tmp_path / "w", {**NEW, "tokenizer": "base", "max_steps": 2}, base=tiny_base)
    train(workdir)
    ours, theirs = (AutoTokenizer.from_pretrained(path) for path in (workdir / MODEL_FOLDER, tiny_base))
    assert ours.get_vocab() == theirs.get_vocab()


def test_all_weights_of_a_base(tmp_path: Path, tiny_base: Path) -> None:
    hyperparameters = {"weights": "full", "max_length": 64, "max_steps": 6, "learning_rate": 1e-3}
    workdir = lay_out(tmp_path / "w", hyperparameters, validation=HELD_OUT, base=tiny_base)
    report = train(workdir)
    assert report["verdict"]["outcome"] == "better"
    before, after = (load_file(path / "model.safetensors") for path in (tiny_base, workdir / MODEL_FOLDER))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name].float(), after[name]) for name in before)
    assert after["model.embed_tokens.weight"].dtype == torch.float32
    assert not (workdir / ADAPTER_FOLDER).exists()


def test_an_adapter_on_a_base_and_all_weights_after_it(tmp_path: Path, tiny_base: Path) -> None:
    hyperparameters = {"max_length": 64, "max_steps": 6, "dtype": "float32", "learning_rate": 0.003}
    first = lay_out(tmp_path / "first", hyperparameters, validation=HELD_OUT, base=tiny_base)
    report = train(first)
    assert report["kind"] == "adapter"
    assert report["hyperparameters"]["learning_rate"] == 0.003
    assert report["verdict"]["outcome"] == "better"
    folder = first / ADAPTER_FOLDER
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(folder))

    start = {"id": "ft:first", "job_id": "ftjob-first", "sha256": "0" * 64}
    asked = {**hyperparameters, "weights": "full", "learning_rate": 1e-3}
    second = lay_out(tmp_path / "second", asked, validation=HELD_OUT, base=tiny_base, start=start)
    shutil.copytree(folder, second / "start")
    merged = train(second)
    begun = merged["comparison"][0]["base"]["value"]
    assert begun == pytest.approx(report["comparison"][0]["tuned"]["value"], rel=1e-4)
    assert merged["comparison"][0]["tuned"]["value"] < begun


def test_the_rate_falls_to_its_floor(tmp_path: Path) -> None:
    workdir = lay_out(tmp_path / "w", {**NEW, "warmup_ratio": 0.1, "min_learning_rate_ratio": 0.25}, sample_count=0)
    train(workdir)
    rates = [event.learning_rate for event in events_of(workdir) if isinstance(event, StepEvent)]
    assert max(rates) == pytest.approx(0.003)
    assert rates[0] < rates[1] < max(rates)
    assert 0.25 * 0.003 <= rates[-1] < 0.3 * 0.003


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    hyperparameters = {**NEW, "architecture": {**SMALL, "dropout": 0.1}, "max_steps": 60, "batch_size": 3}
    whole = lay_out(tmp_path / "whole", hyperparameters, sample_count=0)
    train(whole)
    stopped = lay_out(tmp_path / "stopped", hyperparameters, sample_count=0)
    assert run_training_job(stopped, StopAt(stopped, 25)) == ExitCode.STOPPED  # pyright: ignore[reportArgumentType]
    last = max((stopped / "checkpoints").iterdir(), key=lambda path: int(path.name.partition("-")[2]))
    assert last.name == "step-26"
    resumed = lay_out(tmp_path / "resumed", hyperparameters, sample_count=0, resume=True)
    shutil.copytree(last, resumed / "checkpoint")
    train(resumed)
    ours, theirs = (load_file(path / MODEL_FOLDER / "model.safetensors") for path in (resumed, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_characters_that_training_never_saw_are_reported(tmp_path: Path) -> None:
    hyperparameters = {**NEW, "tokenizer": "char", "max_steps": 1}
    report = train(lay_out(tmp_path / "w", hyperparameters, validation=HELD_OUT + "Ω🙂".encode(), sample_count=0))
    assert "valid.txt: 2 character(s) are not in the training file and count as unknown." in report["warnings"]
