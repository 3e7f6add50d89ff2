"""Whatever a family keeps of earlier tokens: answers drawn in a padded batch are those of each prompt read anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.fixtures.scale import sampled
from tests.fixtures.tiny_families import make_tiny_config
from tests.trainer.family_matrix import families_to_try
from trainer.engine.models.families import cache_kind
from trainer.engine.models.load import language_class, prepare_config
from trainer.engine.scoring.generation import draw_batch, next_scores

# Keys and values, with a window, with a state beside them, a state alone, and nothing.
CHOSEN = ["llama", "gemma3_text", "qwen3_moe", "qwen3_next", "jamba", "mamba", "rwkv", "mistral3"]
STEPS = 8


def draw_model(kind: str) -> Any:
    config = make_tiny_config(kind)
    torch.manual_seed(0)
    model = language_class(config).from_config(config).eval()
    prepare_config(model.config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2 and parameter.is_floating_point():
                parameter.normal_(std=0.1)
    return model


@torch.no_grad()
def read_anew(model: Any, prompt: Sequence[int]) -> tuple[int, ...]:
    tokens = list(prompt)
    for _ in range(STEPS):
        tokens.append(int(model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    return tuple(tokens[len(prompt) :])


@pytest.mark.parametrize("kind", sampled([*CHOSEN, *families_to_try(besides=CHOSEN)], first=len(CHOSEN)))
def test_a_padded_batch_answers_as_each_prompt_alone(kind: str) -> None:
    model = draw_model(kind)
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(10, 200, (size,), generator=generator).tolist() for size in (40, 6, 1)]
    drawn = draw_batch(model, prompts, lambda scores: scores.argmax(-1), limit=STEPS, stops=[], pad_id=2)
    assert [answer.ids for answer in drawn] == [read_anew(model, prompt) for prompt in prompts]


@pytest.mark.parametrize("kind", ["llama", "mamba", "rwkv"])
def test_a_cache_grows_in_place(kind: str) -> None:
    # `trainer.chat.decode` copies it, and lets the copy grow.
    model = draw_model(kind)
    prompt = [5, 6, 7, 8]
    with torch.inference_mode():
        scores, cache = next_scores(model, torch.tensor([prompt]), None)
        answer = [int(scores[0].argmax())]
        for _ in range(STEPS - 1):
            scores, _ = next_scores(model, torch.tensor([answer[-1:]]), cache)
            answer.append(int(scores[0].argmax()))
    assert tuple(answer) == read_anew(model, prompt)


def test_the_chosen_families_cover_each_kind_of_cache() -> None:
    assert {cache_kind(make_tiny_config(kind)) for kind in CHOSEN} == {"keys", "state", "none"}
