"""Tiny random models of the families that are written as GGUF, each with the facts that set it apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

from tests.fixtures.tiny_model import make_tokenizer

TEXT = [
    "The river rose by 3 metres in 1998, and they moved the people. How high did the river rise?",
    "河水上涨了三米, 人们在夜里转移了。河水上涨了多少?",
    # Words whose pieces can be joined in several ways.
    "banana bananas ananas nana anna bandana; abab ababa bababa abba; then there these thesis; 河水河水河, 三三三三三",
    "l'été à Zürich, El niño comió piñas; don't guess the answer, say it.\n\n\tdef f(x):  return x ** 2",
]
INSTRUCTIONS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
TURNS = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + (message['role'] | replace('assistant', 'model')) + '\n' }}"
    "{{ message['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

# What each family has beside a common size; the vocabulary is that of its tokenizer.
SHAPES: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 32},
    "gemma2": {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16},
    "gemma3_text": {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16, "num_hidden_layers": 7},
    "granite": {
        "embedding_multiplier": 1.5,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
        "tie_word_embeddings": True,
    },
    "llama": {"tie_word_embeddings": False},
    "mistral": {"head_dim": 32, "sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    "olmo2": {"num_key_value_heads": 4},
    "phi3": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
    "smollm3": {"num_hidden_layers": 5},
}
SENTENCEPIECE = {"gemma": "never", "gemma2": "never", "gemma3_text": "never", "mistral": "first", "llama": "each"}


def make_family(kind: str, folder: Path) -> Path:
    """Write a random model of the family, with its kind of tokenizer, into `folder` and return that."""
    scheme = SENTENCEPIECE.get(kind)
    tokenizer = make_sentencepiece(scheme) if scheme else make_tokenizer()
    config = make_family_config(kind, tokenizer)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    # A family's own initial weights are so small that a wrong row, or a norm without its 1, would change nothing.
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(parameter + 0.2 * noise if parameter.dim() < 2 else 0.2 * noise)
    model.save_pretrained(str(folder))
    if kind == "gemma3_text":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})  # without a row in the embedding
    tokenizer.save_pretrained(str(folder))
    return folder


def make_family_config(kind: str, tokenizer: PreTrainedTokenizerFast, **more: Any) -> PreTrainedConfig:
    """Return a small configuration of the family."""
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    facts = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "max_position_embeddings": 512,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return AutoConfig.for_model(kind, **{**sizes, **facts, **SHAPES[kind], **more})


def make_sentencepiece(scheme: str, *, learnt_merges: bool = False) -> PreTrainedTokenizerFast:
    """Train BPE with byte tokens whose merges are all that its vocabulary allows, as converted vocabularies have them.

    `scheme` says where a space is put before text. `learnt_merges` keeps those alone that training found.
    """
    turns = scheme == "never"
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"] if turns else ["<unk>", "<s>", "</s>"]
    marks = ["<start_of_turn>", "<end_of_turn>"] if turns else (["[INST]", "[/INST]"] if scheme == "first" else [])
    trainee = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trainee.pre_tokenizer = pre_tokenizers.Metaspace()
    names = [*specials, *marks, *(f"<0x{number:02X}>" for number in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=640, special_tokens=names, limit_alphabet=90, show_progress=False)
    trainee.train_from_iterator(TEXT * 4, trainer)
    vocabulary = trainee.get_vocab()
    ranks = {token: -float(number) for token, number in vocabulary.items()}
    merges = generate_merges(vocabulary, ranks, names)
    if learnt_merges:
        merges = list({"".join(pair): pair for pair in merges}.values())
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    replace = normalizers.Replace(" ", "▁")
    if scheme == "never":
        tokenizer.normalizer = replace
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    elif scheme == "each":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in [*specials, *marks]])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<bos>" if turns else "<s>",
        eos_token="<eos>" if turns else "</s>",
        pad_token="<pad>" if turns else "</s>",
        chat_template=TURNS if turns else INSTRUCTIONS,
    )
