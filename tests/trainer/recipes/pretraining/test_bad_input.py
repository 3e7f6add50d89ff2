from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.trainer.recipes.pretraining.jobs import SMALL, documents, lay_out, refusal
from trainer.contract.methods.pretraining import PretrainingHyperparameters

NEW = {"architecture": SMALL, "tokenizer": "byte", "max_steps": 1}


@pytest.mark.parametrize(
    ("hyperparameters", "sentence"),
    [
        ({"architecture": {**SMALL, "heads": 3}}, "width 32 cannot be split into 3 heads"),
        ({"architecture": {**SMALL, "width": 30}}, "make it a multiple of 4"),
        ({**NEW, "tokenizer": {"type": "bpe", "vocabulary": 100}}, "a vocabulary of 100 is too small"),
        ({**NEW, "max_length": 64}, "longer than the architecture's context 32"),
        ({**NEW, "weights": "lora"}, "no weights to adapt"),
        ({"tokenizer": "char"}, "needs an architecture"),
        ({"weights": "full", "quantization": "4bit"}, "cannot be trained in 4 bits"),
        ({"weights": "full", "lora": {"rank": 4}}, "lora has no meaning"),
        ({"learning_rate": 1e-3, "learning_rate_multiplier": 2.0}, "leave one out"),
    ],
)
def test_what_does_not_fit_together(hyperparameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        PretrainingHyperparameters.model_validate(hyperparameters)


@pytest.mark.parametrize(
    ("training", "suffix", "sentence"),
    [
        (b"", ".txt", "train.txt is empty"),
        (b"\xef\xbb\xbf", ".txt", "train.txt is empty"),
        (b"\n\n", ".jsonl", "train.jsonl is empty"),
        (b"caf\xe9", ".txt", "is not UTF-8: unexpected end of data at byte 3"),
        (documents(["fine", ""]), ".jsonl", "line 2: text: is empty"),
        (b'{"txt": "a"}\n', ".jsonl", "line 1: text: is missing; a row needs the document's text"),
    ],
)
def test_files_without_text(tmp_path: Path, training: bytes, suffix: str, sentence: str) -> None:
    error = refusal(lay_out(tmp_path / "w", NEW, training=training, suffix=suffix))
    assert error.code == "invalid_training_file"
    assert error.param == "training_file"
    assert sentence in error.message


def test_a_file_shorter_than_a_window(tmp_path: Path) -> None:
    error = refusal(lay_out(tmp_path / "w", {**NEW, "max_length": 32}, training=b"too short"))
    assert error.code == "no_trainable_rows"
    assert "train.txt has 10 tokens, which is shorter than one window of 32" in error.message


def test_from_scratch_without_what_it_needs(tmp_path: Path) -> None:
    error = refusal(lay_out(tmp_path / "w", {"max_steps": 1}))
    assert "needs an architecture" in error.message
    error = refusal(lay_out(tmp_path / "v", {"architecture": SMALL, "max_steps": 1}))
    assert "no base to take the tokenizer of" in error.message
    assert error.param == "method.pretraining.hyperparameters.tokenizer"


def test_a_new_model_starts_from_nothing(tmp_path: Path) -> None:
    start = {"id": "ft:first", "job_id": "ftjob-first", "sha256": "0" * 64}
    error = refusal(lay_out(tmp_path / "w", NEW, start=start))
    assert "A new model starts from nothing" in error.message
