"""What results say to other programs: answers end as they did in training, and no number falls back to a default."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, LlamaConfig, PhiConfig

from tests.fixtures.tiny_model import make_tokenizer
from trainer.engine.models.portable import end_of_turn_id, make_portable

END_OF_TEXT, END_OF_TURN = 0, 2
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


@pytest.fixture
def base(tmp_path: Path, tiny_base: Path) -> Path:
    """A base that ends texts by another token than its template ends turns by, as Qwen2.5's bases do."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    for name in ("config.json", "generation_config.json"):
        facts = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(facts | {"eos_token_id": END_OF_TEXT}))
    facts = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(facts | {"eos_token": "<|endoftext|>"}))
    return folder


def save(base: Path, folder: Path) -> Path:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    make_portable(folder, tokenizer, model.generation_config.eos_token_id)
    return folder


def answer_length(folder: Path) -> int:
    """Let a model end its turn at once, with nothing but what the folder says, and count the tokens."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    question = tokenizer.apply_chat_template(
        [{"role": "user", "content": "你好"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    settings: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "sequence_bias": {(END_OF_TURN,): 1e4}}
    answer = cast(Any, model).generate(**question, **settings)
    return answer.shape[1] - question["input_ids"].shape[1]


def test_generation_stops_at_the_end_of_the_turn_by_itself(base: Path, tmp_path: Path) -> None:
    assert answer_length(base) == 12
    saved = save(base, tmp_path / "saved")
    assert answer_length(saved) == 1
    assert AutoTokenizer.from_pretrained(saved).eos_token == "<|im_end|>"
    assert json.loads((saved / "generation_config.json").read_text())["eos_token_id"] == [END_OF_TEXT, END_OF_TURN]


def test_the_tokenizer_has_a_class_and_lists_that_version_4_knows(base: Path, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})  # pyright: ignore[reportArgumentType]
    tokenizer.save_pretrained(str(tmp_path))
    make_portable(tmp_path, tokenizer)
    facts = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert facts["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert facts["additional_special_tokens"] == ["<|tool|>"]
    assert "extra_special_tokens" not in facts
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("<|tool|>你好<|im_end|>")["input_ids"] == tokenizer("<|tool|>你好<|im_end|>")["input_ids"]
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": 1e5}), {"rope_theta": 1e5}),
        (
            LlamaConfig(rope_parameters=LLAMA3),
            {"rope_theta": 5e5, "rope_scaling": {name: LLAMA3[name] for name in LLAMA3 if name != "rope_theta"}},
        ),
        (
            PhiConfig(rope_parameters={"rope_type": "default", "rope_theta": 2e4, "partial_rotary_factor": 0.4}),
            {"rope_theta": 2e4, "partial_rotary_factor": 0.4},
        ),
        (Gemma3TextConfig(), {"rope_theta": 1e6, "rope_local_base_freq": 1e4}),
    ],
    ids=["default", "scaled", "partial", "two kinds of layers"],
)
def test_rotary_positions_are_said_by_the_names_of_version_4_too(
    config: Any, said: dict[str, Any], tmp_path: Path
) -> None:
    config.save_pretrained(str(tmp_path))
    make_portable(tmp_path, make_tokenizer())
    facts = json.loads((tmp_path / "config.json").read_text())
    assert {name: facts[name] for name in said} == said
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.rope_parameters == config.rope_parameters


def test_a_tokenizer_without_a_template_keeps_its_own_end(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(str(tmp_path))
    make_portable(tmp_path, tokenizer, END_OF_TEXT)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "<|endoftext|>"
    assert not (tmp_path / "generation_config.json").exists()
    assert end_of_turn_id(tokenizer) is None
    assert end_of_turn_id(make_tokenizer()) == END_OF_TURN


def test_weights_are_the_same_when_loaded_again(base: Path, tmp_path: Path) -> None:
    saved = save(base, tmp_path / "saved")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        before, after = (AutoModelForCausalLM.from_pretrained(folder)(ids).logits for folder in (base, saved))
    assert torch.equal(before, after)
