"""Rankings as tokens, pairs and batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.recipes.dpo.jobs import message
from trainer.contract.rows import PromptRow, RankingRow
from trainer.engine.chat_template.end_of_turn import closing_ids
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.data.row_renderer import RowRenderer
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.models.load import load_tokenizer
from trainer.engine.onpolicy.prompts import tokenize_prompts
from trainer.engine.preferences.pairs import prompt_length
from trainer.recipes.reward.rankings import Ranking, collate_rankings, tokenize_rankings


def made(ranks: tuple[int, ...], lengths: tuple[int, ...], scores: tuple[float | None, ...] | None = None) -> Ranking:
    rows = tuple(TokenizedRow(1, tuple(range(length)), (True,) * length) for length in lengths)
    return Ranking(1, rows, ranks, scores or (None,) * len(ranks))


def test_pairs_have_the_better_first_and_ties_make_none() -> None:
    assert list(made((2, 1, 2, 5), (3, 3, 3, 3)).iter_pairs()) == [(0, 3), (1, 0), (1, 2), (1, 3), (2, 3)]


def test_too_long_responses_leave_and_what_is_left_must_have_an_order() -> None:
    ranking = made((1, 2, 2), (9, 3, 4), (0.5, None, 0.1))
    assert ranking.fit_within(9) is ranking
    assert ranking.fit_within(8) is None
    shorter = made((1, 2, 3), (3, 9, 4), (0.5, 0.3, 0.1)).fit_within(4)
    assert shorter is not None
    assert (shorter.ranks, shorter.scores, shorter.tokens) == ((1, 3), (0.5, 0.1), 7)


def test_a_batch_lays_prompts_end_to_end() -> None:
    batch = collate_rankings([made((1, 2), (2, 4)), made((3, 1, 1), (1, 3, 2), (0.0, 2.0, None))], pad_id=7)
    assert batch["input_ids"].tolist()[0] == [0, 1, 7, 7]
    assert batch["attention_mask"].sum(1).tolist() == [2, 4, 1, 3, 2]
    assert batch["pairs"].tolist() == [[0, 1], [3, 2], [4, 2]]
    torch.testing.assert_close(batch["weights"], torch.tensor([1.0, 0.5, 0.5]))
    assert batch["margins"].tolist() == [0.0, 2.0, 0.0]
    assert int(batch["prompts"]) == 2


@pytest.mark.parametrize("answer", ["Gladly!", "我很好, 谢谢! 😀", " with a space", ""])
def test_a_response_has_the_tokens_that_ppo_shows_a_reward_model(tiny_base: Path, answer: str) -> None:
    template = ChatTemplate(load_tokenizer(tiny_base))
    renderer = RowRenderer(template, filename="a.jsonl", param="training_file")
    prompt = {"messages": [message("user", "你好"), message("assistant", "Hi"), message("user", "Go on.")]}
    responses = [
        {"message": message("assistant", answer), "rank": 1},
        {"message": message("assistant", "?"), "rank": 2},
    ]
    row = RankingRow.model_validate({"input": prompt, "responses": responses})
    (ranking,) = tokenize_rankings(renderer, [row], filename="a.jsonl", context=512, param="training_file")
    (asked,) = tokenize_prompts(renderer, [PromptRow.model_validate({"input": prompt})])
    said = template.tokenizer(answer, add_special_tokens=False)["input_ids"]
    assert ranking.responses[0].input_ids == (*asked.input_ids, *said, *closing_ids(template))


def test_a_response_of_several_turns_is_scored_at_its_last_in_the_context_of_all(tiny_base: Path) -> None:
    template = ChatTemplate(load_tokenizer(tiny_base))
    renderer = RowRenderer(template, filename="a.jsonl", param="training_file")
    turns = [message("assistant", "您好!"), message("user", "首都?"), message("assistant", "巴黎。")]
    prompt = [message("user", "你好")]
    responses = [{"messages": turns, "rank": 1}, {"messages": [*turns[:2], message("assistant", "里昂。")], "rank": 2}]
    row = RankingRow.model_validate({"input": {"messages": prompt}, "responses": responses})
    (ranking,) = tokenize_rankings(renderer, [row], filename="a.jsonl", context=512, param="training_file")
    longer = PromptRow.model_validate({"input": {"messages": [*prompt, *turns[:2]]}})
    (asked,) = tokenize_prompts(renderer, [longer])
    said = template.tokenizer("巴黎。", add_special_tokens=False)["input_ids"]
    best, worst = ranking.responses
    assert best.input_ids == (*asked.input_ids, *said, *closing_ids(template))
    assert prompt_length(best) == prompt_length(worst) == len(asked.input_ids)
