"""Sampling: stops, lengths, seeds, padding, and the distribution itself."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.recipes.ppo.worlds import END, PROMPT, VOCABULARY, make_ppo, sampling, tiny_policy
from trainer.engine.data.order import prompts_of_iteration
from trainer.engine.onpolicy.forward import collate_responses, response_log_probs
from trainer.engine.onpolicy.prompts import TokenizedPrompt
from trainer.engine.onpolicy.rollout import sample
from trainer.kit.errors import TrainerError

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

PROMPTS = [(1, 2), (3, 1, 2, 2, 1), (2,)] * 20


def test_answers_end_at_a_stop_or_at_the_limit_and_follow_from_the_seed() -> None:
    model = tiny_policy(3)
    drawn = sample(model, PROMPTS, sampling(max_new_tokens=4), 9)
    assert drawn is not None
    for response in drawn:
        assert 1 <= len(response.ids) <= 4
        assert END not in response.ids[:-1]
        assert response.ended == (response.ids[-1] == END)
        assert response.ended or len(response.ids) == 4
    assert {response.ended for response in drawn} == {True, False}
    assert drawn == sample(model, PROMPTS, sampling(max_new_tokens=4), 9)
    assert drawn != sample(model, PROMPTS, sampling(max_new_tokens=4), 10)


def test_the_cache_and_left_padding_sample_from_the_model_s_distribution() -> None:
    """First tokens' frequencies, drawn in one padded batch, agree with the forward pass of each prompt alone."""
    model = tiny_policy(4)
    count = 3000
    for temperature in (1.0, 0.5):
        drawn = sample(model, [(1, 2), (3, 1, 2, 2)] * count, sampling(max_new_tokens=2, temperature=temperature), 1)
        assert drawn is not None
        for place, prompt in enumerate([(1, 2), (3, 1, 2, 2)]):
            mine = drawn[place::2]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt])).logits[0, -1] / temperature
            counts = torch.bincount(torch.tensor([r.ids[0] for r in mine]), minlength=VOCABULARY)
            assert (counts / count - logits.softmax(-1)).abs().max() < 0.04
            word = int(counts[1:].argmax()) + 1
            second = [r.ids[1] for r in mine if r.ids[0] == word]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, word]])).logits[0, -1] / temperature
            shares = torch.bincount(torch.tensor(second), minlength=VOCABULARY) / len(second)
            assert (shares - logits.softmax(-1)).abs().max() < 0.08


def test_the_nucleus_leaves_the_tail_out_and_keeps_the_first() -> None:
    model = tiny_policy(5)
    with torch.no_grad():
        best = int(model(input_ids=torch.tensor([PROMPT.input_ids])).logits[0, -1].argmax())
    drawn = sample(model, [PROMPT.input_ids] * 50, sampling(max_new_tokens=1, top_p=1e-6), 1)
    assert drawn is not None
    assert {response.ids for response in drawn} == {(best,)}


def test_a_stop_request_gives_up_drawing() -> None:
    assert sample(tiny_policy(3), PROMPTS, sampling(), 9, lambda: True) is None


def test_outputs_that_are_not_numbers_are_a_collapse() -> None:
    model = tiny_policy(3)
    with torch.no_grad():
        model.get_base_model().lm_head.weight.fill_(torch.nan)
    with pytest.raises(TrainerError, match="not finite") as caught:
        sample(model, PROMPTS, sampling(), 9)
    assert caught.value.code == "policy_collapsed"


def test_masks_come_from_lengths_where_padding_is_the_end_token() -> None:
    batch = collate_responses([(1, 2), (3,)], [(1, END), (2, 2, 2, END)], END, "cpu")
    assert batch.input_ids.tolist() == [[1, 2, 1, END, END], [3, 2, 2, 2, END]]
    assert batch.attention_mask.sum(1).tolist() == [4, 5]
    assert batch.predicting.int().tolist() == [[0, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    assert batch.targets.tolist() == [1, END, 2, 2, 2, END]
    assert batch.last.tolist() == [3, 4]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_and_entropies_against_the_whole_forward(temperature: float) -> None:
    model = tiny_policy(6)
    prompts, responses = [(1, 2), (3,)], [(1, END), (2, 2, 2, END)]
    log_probs, entropies = response_log_probs(model, collate_responses(prompts, responses, END, "cpu"), temperature)
    place = 0
    for prompt, response in zip(prompts, responses, strict=True):
        with torch.no_grad():
            whole = (model(input_ids=torch.tensor([[*prompt, *response]])).logits[0] / temperature).log_softmax(-1)
        for offset, token in enumerate(response):
            row = whole[len(prompt) + offset - 1]
            assert float(log_probs[place].detach()) == pytest.approx(float(row[token]), abs=1e-5)
            assert float(entropies[place]) == pytest.approx(float(-(row.exp() * row).sum()), abs=1e-5)
            place += 1


def test_order_follows_from_seed_and_iteration_and_passes_are_whole() -> None:
    taken = [number for iteration in range(7) for number in prompts_of_iteration(7, 3, 5, iteration)]
    for epoch in range(3):
        assert sorted(taken[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert taken[:7] != taken[7:14]
    assert len(prompts_of_iteration(3, 8, 5, 0)) == 8


def test_the_ratio_of_the_first_step_is_one_and_a_missing_end_costs() -> None:
    ppo = make_ppo(tiny_policy(7), lambda _p, drawn: [1.0] * len(drawn), missing_eos_penalty=0.25, batch_size=8)
    prompts = [TokenizedPrompt(line, ids) for line, ids in enumerate(PROMPTS, start=1)]
    answers = ppo.collect_answers(prompts, 0)
    assert answers is not None
    assert torch.equal(answers.rewards, torch.where(answers.ended, 1.0, 0.75))
    assert float(answers.kl.abs().max()) < 1e-6
    facts = ppo.improve_policy(answers, 0)
    assert facts["first_ratio_error"] <= 1e-6
    assert abs(facts["ratio"] - 1) > 1e-6
    assert facts["updates"] == ppo.hyperparameters.ppo_epochs
