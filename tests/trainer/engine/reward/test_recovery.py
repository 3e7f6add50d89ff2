"""Rankings by a hidden reward teach its order, in a world small enough to be enumerated."""

from __future__ import annotations

import itertools

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForSequenceClassification

from tests.trainer.engine.ppo.worlds import END, PROMPT, VOCABULARY, completions
from trainer.engine.data import TokenizedRow
from trainer.engine.reward.losses import pair_losses
from trainer.engine.reward.model import last_scores, score_sequences
from trainer.engine.reward.rankings import Ranking, collate_rankings

RANKINGS, RANKED, STEPS = 150, 4, 200


def tiny_classifier(seed: int) -> PeftModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        num_labels=1,
        pad_token_id=END,
        initializer_range=0.2,
    )
    base = LlamaForSequenceClassification(config)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["score"])
    model = get_peft_model(base, lora)
    assert isinstance(model, PeftModel)
    return model


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_of_a_hidden_reward_is_recovered_on_unseen_pairs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    answers = completions()
    rows = [TokenizedRow(n, (*PROMPT.input_ids, *a), (True,) * (2 + len(a))) for n, a in enumerate(answers)]
    hidden: list[float] = torch.randn(len(answers), generator=generator, dtype=torch.float64).tolist()
    data: list[Ranking] = []
    seen: set[frozenset[int]] = set()
    for line in range(RANKINGS):
        chosen: list[int] = torch.randperm(len(answers), generator=generator)[:RANKED].tolist()
        ranks = tuple(1 + sum(hidden[other] > hidden[n] for other in chosen) for n in chosen)
        data.append(Ranking(line, tuple(rows[n] for n in chosen), ranks, (None,) * RANKED))
        seen |= {frozenset(pair) for pair in itertools.combinations(chosen, 2)}
    model = tiny_classifier(seed)
    batch = collate_rankings(data, END)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=8e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, STEPS)
    for _ in range(STEPS):
        loss = (pair_losses(last_scores(model, batch), batch["pairs"]) * batch["weights"]).sum() / RANKINGS
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    scores = score_sequences(model, rows, END)
    unseen = [pair for pair in itertools.combinations(range(len(rows)), 2) if frozenset(pair) not in seen]
    assert len(unseen) > 200
    right = sum((scores[one] > scores[other]) == (hidden[one] > hidden[other]) for one, other in unseen)
    assert right / len(unseen) >= 0.95
