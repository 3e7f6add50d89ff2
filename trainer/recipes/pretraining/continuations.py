"""Samples of pre-training: beginnings of held-out windows, continued greedily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from trainer.engine.scoring.evaluate import evaluation_mode
from trainer.engine.scoring.generation import generate_greedily
from trainer.engine.scoring.samples import PromptMessage, SampleQuestion
from trainer.recipes.pretraining.packing import Window, Windows

PROMPT_TOKENS = 32
NEW_TOKENS = 96


def choose_openings(
    tokenizer: PreTrainedTokenizerBase, windows: Windows, *, count: int, source: Literal["validation", "training"]
) -> list[SampleQuestion]:
    """Choose up to `count` evenly spaced windows that begin with enough text of one document."""
    stride = max(1, len(windows) // max(count, 1))
    size = min(PROMPT_TOKENS, windows.length // 2)
    found = (_find_opening(tokenizer, window, size, source) for window in windows[::stride][:count])
    return [question for question in found if question]


def continue_openings(
    model: Any, tokenizer: PreTrainedTokenizerBase, questions: Sequence[SampleQuestion], context: int
) -> list[str]:
    """Continue each opening greedily, up to the context or 96 tokens; the openings are of one length."""
    if not questions:
        return []
    end, pad_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    assert isinstance(end, int)
    assert isinstance(pad_id, int)
    prompts = [question.ids for question in questions]
    limit = min(NEW_TOKENS, context - len(prompts[0]))
    with evaluation_mode(model):
        answers = generate_greedily(model, prompts, limit=limit, stops=[end], pad_id=pad_id)
    return [_decode_text(tokenizer, ids) for ids in answers]


def _find_opening(
    tokenizer: PreTrainedTokenizerBase, window: Window, size: int, source: Literal["validation", "training"]
) -> SampleQuestion | None:
    # The first document that begins inside the window, or the window's own beginning.
    begin = int(window.position_ids[1:].argmin()) + 1 if 0 in window.position_ids[1:] else 0
    end = begin + size
    # Positions that run through: the prompt is one document's.
    same = end < len(window) and window.position_ids[end - 1] == size - 1
    if not same:
        return None
    rest = window.targets[end - 1 :].tolist()[:NEW_TOKENS]
    shown = PromptMessage(role="text", content=_decode_text(tokenizer, window.input_ids[begin:end].tolist()))
    ids = window.input_ids[begin:end].tolist()
    return SampleQuestion(window.line, source, (shown,), ids, _decode_text(tokenizer, rest), len(rest))


def _decode_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
