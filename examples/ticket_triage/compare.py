"""Base against tuned in plain transformers and PEFT, as anybody would load the downloaded adapter."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Messages = list[dict[str, str]]

_MAX_NEW_TOKENS = 64
_BATCH = 12


def answer_both_ways(
    base: Path, adapter: Path, prompts: Sequence[Messages], on_progress: Callable[[int, int], None]
) -> tuple[list[str], list[str]]:
    """Return the base's and the tuned model's greedy answers to each prompt."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    # transformers 5.23 itself reads the attribute that it deprecates, whenever PEFT wraps a model.
    warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
    tokenizer: Any = AutoTokenizer.from_pretrained(adapter, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    tuned: Any = PeftModel.from_pretrained(model, adapter).eval()
    batches = [prompts[start : start + _BATCH] for start in range(0, len(prompts), _BATCH)]
    total = 2 * len(prompts)
    base_answers: list[str] = []
    tuned_answers: list[str] = []
    for batch in batches:
        with tuned.disable_adapter():
            base_answers += _generate(tuned, tokenizer, batch)
        on_progress(len(base_answers) + len(tuned_answers), total)
        tuned_answers += _generate(tuned, tokenizer, batch)
        on_progress(len(base_answers) + len(tuned_answers), total)
    return base_answers, tuned_answers


def _generate(model: Any, tokenizer: Any, prompts: Sequence[Messages]) -> list[str]:
    texts = [tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True) for prompt in prompts]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    output = model.generate(
        **inputs, do_sample=False, max_new_tokens=_MAX_NEW_TOKENS, pad_token_id=tokenizer.pad_token_id
    )
    answers = output[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]
