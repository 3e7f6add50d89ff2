"""Each family that is written as GGUF: llama.cpp makes the same tokens and log-probabilities as transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.exporting.families import SHAPES, make_family, make_sentencepiece
from tests.trainer.exporting.models import lay_out
from trainer.contract.export import GGUF_FAMILIES
from trainer.exporting import export_model, gguf_file
from trainer.exporting.gguf_families import FAMILIES
from trainer.exporting.gguf_file import explain_gguf_refusal
from trainer.kit.errors import TrainerError

SCRIPT = Path(__file__).with_name("llama_tokens.py")
SAID = [
    {"role": "user", "content": "How high did the river rise in 1998? 河水上涨了多少? don't  guess 🙂"},
    {"role": "assistant", "content": "It rose by 3 metres, 三米。"},
    {"role": "user", "content": "Zürich, l'été: 1,204 people? 人们在夜里转移了\n\n- x ** 2"},
]
TEXTS = ("The river rose.\n\n\tdef f(x):  return x ** 2", "一九九八年, 河水上涨了3.25米。“快走!” 🙂", "  two  spaces")


def test_the_service_knows_the_families_without_torch() -> None:
    assert tuple(FAMILIES) == GGUF_FAMILIES == tuple(sorted(SHAPES))


@pytest.mark.integration
@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_llama_cpp_computes_what_transformers_does(tmp_path: Path, kind: str) -> None:
    source = make_family(kind, tmp_path / "model")
    files: dict[str, Path] = {}
    for precision in ("f32", "q8_0"):
        spec = lay_out(tmp_path / precision, source, kind="model", to="gguf", precision=precision)
        check = export_model(spec, tmp_path / precision)
        assert check.file_difference <= 1e-3
        files[precision] = tmp_path / precision / "output" / spec.filename
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    chat: str = tokenizer.apply_chat_template(SAID, add_generation_prompt=True, tokenize=False)
    prompt: list[int] = tokenizer(chat, add_special_tokens=False)["input_ids"]
    assert len(prompt) > 3 * 16, "more than the window of 16"
    # llama.cpp adds the prefix of the tokenizer's `first` kind to no text: what counts is conversations.
    texts = [chat, *(("[INST]" if kind == "mistral" else "") + text for text in TEXTS)]
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    expected = find_log_probabilities(source, prompt)
    lengths = range(len(prompt) - 38, len(prompt) + 1, 2)
    for precision, file in files.items():
        found = ask_llama_cpp(file, prompt, list(lengths), texts)
        assert found["chat_tokens"] == len(prompt)
        assert found["texts"] == tokens
        differences = [
            abs(score - float(expected[length - 1, int(number)]))
            for length, scores in zip(lengths, found["scores"], strict=True)
            for number, score in (scores or {}).items()
        ]
        assert len(differences) >= 100
        if precision == "f32":
            # GELU comes from a table in 16 bits.
            assert max(differences) <= 0.01
        else:
            # Its products of 8 bits round what they multiply too.
            assert sum(differences) / len(differences) <= 0.15


def find_log_probabilities(source: Path, ids: list[int]) -> torch.Tensor:
    # Other implementations of attention leave Gemma's soft caps out.
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


def ask_llama_cpp(file: Path, prompt: list[int], lengths: list[int], texts: list[str]) -> dict[str, Any]:
    question = {"file": str(file), "messages": SAID, "prompt": prompt, "lengths": lengths, "texts": texts}
    child = subprocess.run(
        [sys.executable, str(SCRIPT)],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    found = [line for line in child.stdout.splitlines() if line.startswith("RESULT ")]
    assert found, child.stderr[-3000:]
    return json.loads(found[0].removeprefix("RESULT "))
