from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from tests.trainer.recipes.ppo.worlds import END, tiny_policy
from trainer.engine.scoring.generation import cut_to_nucleus, draw_batch, draw_tokens, generate_greedily
from trainer.kit.errors import TrainerError

PROMPTS = [(1, 2), (3, 1, 2, 2, 1), (2,), (3, 3, 1)]


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.2, 0.6]])
    assert cut_to_nucleus(probabilities, 0.85).tolist() == torch.tensor([[0.0, 0.5, 0.4], [0.2, 0.2, 0.6]]).tolist()
    assert cut_to_nucleus(probabilities, 1e-9).argmax(-1).tolist() == [1, 2]
    assert (cut_to_nucleus(probabilities, 1e-9) > 0).sum(-1).tolist() == [1, 1]
    assert cut_to_nucleus(probabilities, 1.0) is probabilities


def test_a_row_is_drawn_alone_as_in_a_batch_of_one() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(3))
    alone = [draw_tokens(logits, 0.7, 0.9, torch.Generator().manual_seed(seed)) for seed in range(20)]
    batch = [draw_tokens(logits[None], 0.7, 0.9, torch.Generator().manual_seed(seed))[0] for seed in range(20)]
    assert torch.equal(torch.stack(alone), torch.stack(batch))
    assert len({int(token) for token in alone}) > 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_greedy_answers_are_those_that_transformers_gives_each_prompt_alone(seed: int) -> None:
    model = tiny_policy(seed)
    asked = GenerationConfig(max_new_tokens=6, do_sample=False, eos_token_id=END, pad_token_id=END)
    found = generate_greedily(model, PROMPTS, limit=6, stops=[END], pad_id=END)
    for prompt, answer in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=asked)
        assert theirs[0, len(prompt) :].tolist() == list(answer)


def test_a_base_s_own_defaults_do_not_change_greedy_answers() -> None:
    model = tiny_policy(3)
    before = generate_greedily(model, PROMPTS, limit=6, stops=[], pad_id=END)
    model.generation_config.repetition_penalty = 100.0
    assert generate_greedily(model, PROMPTS, limit=6, stops=[], pad_id=END) == before
    assert any(len(set(answer)) < len(answer) for answer in before), "the penalty had something to change"


def test_what_an_ended_row_draws_afterwards_is_no_part_of_its_answer() -> None:
    scripts = torch.tensor([[2, END, 3, 1], [1, 1, 2, 3]])
    place = iter(range(4))
    drawn = draw_batch(
        tiny_policy(1), PROMPTS[:2], lambda _scores: scripts[:, next(place)], limit=4, stops=[END], pad_id=END
    )
    assert [(response.ids, response.ended) for response in drawn] == [((2, END), True), ((1, 1, 2, 3), False)]


def test_greedy_answers_of_a_broken_model_are_an_error() -> None:
    model = tiny_policy(3)
    with torch.no_grad():
        model.get_base_model().lm_head.weight.fill_(torch.nan)
    with pytest.raises(TrainerError, match="not finite") as caught:
        generate_greedily(model, PROMPTS, limit=3, stops=[END], pad_id=END)
    assert caught.value.code == "loss_not_finite"
