"""Rankings by a hidden reward teach its order, in a world small enough to be enumerated."""

from __future__ import annotations

import itertools

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForSequenceClassification

from tests.fixtures.scale import sampled
from tests.trainer.equivalence import Record
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.reward.model import last_scores, score_sequences
from trainer.recipes.reward.losses import pair_losses
from trainer.recipes.reward.rankings import Ranking, collate_rankings

END, VOCABULARY, LONGEST, PROMPT = 0, 4, 4, (1, 2)
RANKINGS, RANKED, PROMPTS, STEPS = 150, 8, 25, 320


def tiny_classifier(seed: int) -> PeftModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        pad_token_id=END,
        initializer_range=0.2,
    )
    config.num_labels = 1
    base = LlamaForSequenceClassification(config)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["score"])
    model = get_peft_model(base, lora)
    assert isinstance(model, PeftModel)
    return model


def all_answers() -> list[TokenizedRow]:
    """Return every answer behind the prompt: ended by END, or cut at the longest. END is the padding, too."""
    words = range(1, VOCABULARY)
    ended = [(*body, END) for size in range(LONGEST) for body in itertools.product(words, repeat=size)]
    answers = [*ended, *itertools.product(words, repeat=LONGEST)]
    return [
        TokenizedRow(n, (*PROMPT, *answer), (False, False) + (True,) * len(answer)) for n, answer in enumerate(answers)
    ]


def rankings_by(
    hidden: list[float], rows: list[TokenizedRow], generator: torch.Generator
) -> tuple[list[Ranking], set[frozenset[int]]]:
    """Rank random answers by the hidden reward; return the rankings, and the pairs that are in one of them."""
    data: list[Ranking] = []
    seen: set[frozenset[int]] = set()
    for line in range(RANKINGS):
        chosen: list[int] = torch.randperm(len(rows), generator=generator)[:RANKED].tolist()
        ranks = tuple(1 + sum(hidden[other] > hidden[n] for other in chosen) for n in chosen)
        data.append(Ranking(line, tuple(rows[n] for n in chosen), ranks, (None,) * RANKED))
        seen |= {frozenset(pair) for pair in itertools.combinations(chosen, 2)}
    return data, seen


@pytest.mark.slow
@pytest.mark.parametrize("seed", sampled([1, 2, 3]))
def test_the_order_of_a_hidden_reward_is_recovered_on_unseen_pairs(seed: int, record_property: Record) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = all_answers()
    worth = torch.randn(LONGEST, VOCABULARY, generator=generator, dtype=torch.float64)
    hidden = [float(sum(worth[place, token] for place, token in enumerate(row.input_ids[2:]))) for row in rows]
    data, seen = rankings_by(hidden, rows, generator)
    batches = [collate_rankings(data[start : start + PROMPTS], END) for start in range(0, RANKINGS, PROMPTS)]
    model = tiny_classifier(seed)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=8e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, STEPS)
    for batch in itertools.islice(itertools.cycle(batches), STEPS):
        loss = (pair_losses(last_scores(model, batch), batch["pairs"]) * batch["weights"]).sum() / PROMPTS
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    scores = score_sequences(model, rows, END)
    unseen = [pair for pair in itertools.combinations(range(len(rows)), 2) if frozenset(pair) not in seen]
    assert len(unseen) > len(seen)
    right = sum((scores[one] > scores[other]) == (hidden[one] > hidden[other]) for one, other in unseen)
    record_property("pair accuracy on unseen pairs", f"{right / len(unseen):.4f} of {len(unseen):,}")
    assert right / len(unseen) >= 0.95
