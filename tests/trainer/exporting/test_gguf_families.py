"""Each family that is written as GGUF: llama.cpp makes the same tokens and log-probabilities as transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tests.trainer.exporting.families import SHAPES, make_family, make_family_config, make_sentencepiece
from tests.trainer.exporting.models import lay_out
from trainer.contract.export import GGUF_FAMILIES
from trainer.exporting import export_model, gguf_file
from trainer.exporting.gguf_families import FAMILIES
from trainer.exporting.gguf_file import explain_gguf_refusal
from trainer.exporting.gguf_tokenizer import check_tokenizer
from trainer.kit.errors import TrainerError

SCRIPT = Path(__file__).with_name("llama_tokens.py")
SAID = [
    {"role": "user", "content": "How high did the river rise in 1998? 河水上涨了多少? don't  guess 🙂"},
    {"role": "assistant", "content": "It rose by 3 metres, 三米。"},
    {"role": "user", "content": "Zürich, l'été: 1,204 people? 人们在夜里转移了\n\n- x ** 2"},
]
TEXTS = (
    "The river rose.\n\n\tdef f(x):  return x ** 2",
    "一九九八年, 河水上涨了3.25米。“快走!” 🙂",
    "  two  bananas: nanananana, abababa 三三三",
)


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
        answer = ask_llama_cpp(file, prompt, list(lengths), texts)
        assert answer["chat_tokens"] == len(prompt)
        assert answer["texts"] == tokens
        differences = [
            abs(score - float(expected[length - 1, int(number)]))
            for length, scores in zip(lengths, answer["scores"], strict=True)
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
    lines = [line for line in child.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, child.stderr[-3000:]
    return json.loads(lines[0].removeprefix("RESULT "))


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("smollm3", {"no_rope_layer_interval": 2}, "every 4th layer"),
        ("smollm3", {"attention_bias": True}, "attention_bias"),
        ("gemma", {"hidden_activation": "gelu"}, "activation gelu_pytorch_tanh, not with gelu"),
        ("gemma", {"tie_word_embeddings": False}, "output matrix"),
        ("gemma2", {"layer_types": ["full_attention", "sliding_attention"]}, "one layer in 2,"),
        ("gemma2", {"query_pre_attn_scalar": 24}, "root of 32, and this model by that of 24"),
        ("gemma2", {"num_hidden_layers": 46}, "root of 16, and this model by that of 32"),
        ("gemma2", {"attn_logit_softcapping": None}, "softly, and this model does not"),
        ("gemma3_text", {"layer_types": ["sliding_attention"] * 7}, "one layer in 6,"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "softly, and this model does"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "later tokens"),
        (
            "gemma3_text",
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}},
            "type linear",
        ),
        (
            "gemma3_text",
            {"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 5e4}}},
            "base 10000",
        ),
        ("mistral", {"sliding_window": 64}, "sliding window of 64"),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 64}, "sliding window of 64"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        ("olmo2", {"tie_word_embeddings": True}, "output matrix"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(kind: str, change: dict[str, Any], reason: str) -> None:
    tokenizer = make_sentencepiece("never")
    assert explain_gguf_refusal(make_family_config(kind, tokenizer), tokenizer) is None
    refusal = explain_gguf_refusal(make_family_config(kind, tokenizer, **change), tokenizer)
    assert refusal
    assert reason in refusal


def test_other_families_are_refused_by_name() -> None:
    refusal = explain_gguf_refusal(AutoConfig.for_model("gpt2"), make_sentencepiece("each"))
    assert refusal
    assert "family gpt2" in refusal
    assert all(name in refusal for name in GGUF_FAMILIES)


def _learnt() -> PreTrainedTokenizerFast:
    return make_sentencepiece("each", learnt_merges=True)


def _split_at_spaces() -> PreTrainedTokenizerFast:
    tokenizer = make_sentencepiece("first")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def _lower_case() -> PreTrainedTokenizerFast:
    tokenizer = make_sentencepiece("each")
    steps = [normalizers.Lowercase(), normalizers.Replace(" ", "▁")]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


def _few_bytes() -> PreTrainedTokenizerFast:
    alphabet = {token: number for number, token in enumerate(["<unk>", "▁", "a", "b", "<0x41>"])}
    tokenizer = Tokenizer(models.BPE(alphabet, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_learnt, "merges by the tokens alone"),
        (_split_at_spaces, "prepares text by Metaspace"),
        (_lower_case, "prepares text by Lowercase, Replace"),
        (_few_bytes, "has not a token for each of the 256"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_not_follow_is_refused(
    make: Callable[[], PreTrainedTokenizerFast], reason: str
) -> None:
    with pytest.raises(TrainerError, match=reason) as caught:
        check_tokenizer(make())
    assert caught.value.code == "unsupported_export"


def test_a_weight_in_another_order_is_never_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own reader sees a fault in what was written, though not one that it shares."""
    source = make_family("smollm3", tmp_path / "model")
    monkeypatch.setattr(gguf_file, "_encode_weight", lambda _name, parameter, _config, _family: parameter.numpy())
    spec = lay_out(tmp_path / "e", source, kind="model", to="gguf", precision="f32")
    with pytest.raises(TrainerError, match="does not give the trained model's logits") as caught:
        export_model(spec, tmp_path / "e")
    assert caught.value.code == "export_mismatch"
