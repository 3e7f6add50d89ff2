"""What exported models are compared on: a conversation, plain text in two scripts, and tokens at random."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from trainer.engine.models.load import context_length
from trainer.engine.scoring.compare_outputs import compute_logits

Logits = torch.Tensor

LENGTH = 96
"""Tokens of a probe at most: every layer and every position of a short text is seen."""
CONVERSATION = [
    {"role": "user", "content": "What's the capital of France? 法国的首都是哪里?"},
    {"role": "assistant", "content": "Paris. 巴黎。"},
]
TEXTS = (
    "In 1998, the river rose by 3.25 metres; they'd moved 1,204 people by night.\n\n\tdef f(x):  return x ** 2",
    "一九九八年, 河水上涨了3.25米。人们在夜里转移了一千多人 —— “快走!” 他说。🙂",
    "El niño comió piñas; l'été à Zürich, ещё раз. don't  stop",
)
_RANDOM_TOKENS = 48


def make_probes(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> list[list[int]]:
    """Return rows of token ids that the model can take, the same for the same tokenizer."""
    limit = min(LENGTH, context_length(config))
    rows = [encode_text(tokenizer, text)[:limit] for text in TEXTS]
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
        assert isinstance(text, str)
        rows.append(encode_text(tokenizer, text)[:limit])
    generator = torch.Generator().manual_seed(0)
    tokens = min(len(tokenizer), int(config.get_text_config().vocab_size))
    rows.append(torch.randint(tokens, (min(_RANDOM_TOKENS, limit),), generator=generator).tolist())
    return [row for row in rows if row]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return a text's tokens, none added."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def probe_model(model: Any, rows: list[list[int]]) -> list[Logits]:
    """Return each row's logits in float32 on the CPU: [tokens, vocabulary], or [1, 1] of a reward model."""
    return [compute_logits(model, {"input_ids": torch.tensor([row], device=model.device)})[0].cpu() for row in rows]
