"""Samples of pre-training: beginnings of held-out windows, continued greedily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from trainer.engine.scoring.evaluate import evaluating
from trainer.engine.scoring.samples import PromptMessage, Question
from trainer.recipes.pretraining.packing import Window, Windows

PROMPT_TOKENS = 32
NEW_TOKENS = 96


def openings(
    tokenizer: PreTrainedTokenizerBase, windows: Windows, *, count: int, source: Literal["validation", "training"]
) -> list[Question]:
    """Choose up to `count` evenly spaced windows that begin with enough text of one document."""
    stride = max(1, len(windows) // max(count, 1))
    size = min(PROMPT_TOKENS, windows.length // 2)
    found = (_opening(tokenizer, window, size, source) for window in windows[::stride][:count])
    return [question for question in found if question]


def continuations(
    model: Any, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], context: int
) -> list[str]:
    """Continue each opening greedily, up to the context or 96 tokens; the openings are of one length."""
    if not questions:
        return []
    ids = torch.tensor([question.ids for question in questions], device=model.device)
    size = ids.shape[1]
    greedy = GenerationConfig(
        max_new_tokens=min(NEW_TOKENS, context - size),
        do_sample=False,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with evaluating(model):
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=greedy)
    return [_decode(tokenizer, row[size:].tolist()) for row in output]


def _opening(
    tokenizer: PreTrainedTokenizerBase, window: Window, size: int, source: Literal["validation", "training"]
) -> Question | None:
    begin = int(window.position_ids[1:].argmin()) + 1 if 0 in window.position_ids[1:] else 0
    end = begin + size
    same = end < len(window) and window.position_ids[end - 1] == size - 1
    if not same:
        return None
    rest = window.targets[end - 1 :].tolist()[:NEW_TOKENS]
    shown = PromptMessage(role="text", content=_decode(tokenizer, window.input_ids[begin:end].tolist()))
    ids = window.input_ids[begin:end].tolist()
    return Question(window.line, source, (shown,), ids, _decode(tokenizer, rest), len(rest))


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
