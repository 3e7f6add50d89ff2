"""A document's logits do not depend on its neighbours, in either way of computing attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, PreTrainedModel

from trainer.contract.methods.pretraining import Architecture
from trainer.recipes.pretraining.architecture import make_config, make_model
from trainer.recipes.pretraining.packing import chain_documents, collate_windows
from trainer.recipes.pretraining.scoring import keeps_documents_apart, score_windows, token_scores
from trainer.recipes.pretraining.tokenizers import make_tokenizer

FIRST, OTHER, SECOND = [10, 11, 12, 13], [50, 51, 52, 53], [20, 21, 22]


@pytest.fixture
def model() -> PreTrainedModel:
    tokenizer = make_tokenizer("byte", [], 32, Path("nowhere"))
    made = make_model(make_config(Architecture(layers=2, heads=2, width=32, context=32), tokenizer), seed=3)
    # Larger weights than at the start of a training, so that attention matters.
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return made.eval()


def losses(model: Any, documents: list[list[int]], across: bool = False) -> torch.Tensor:
    windows = chain_documents(documents, start=0, end=0).cut_windows(32, across=across)
    with torch.no_grad():
        return token_scores(model, collate_windows(list(windows), 1))[0][0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_neighbours_do_not_matter(model: PreTrainedModel, attention: str) -> None:
    model.set_attn_implementation(attention)
    alone = losses(model, [SECOND])
    for neighbour in (FIRST, OTHER):
        torch.testing.assert_close(losses(model, [neighbour, SECOND])[-4:], alone, rtol=1e-5, atol=1e-5)
    assert keeps_documents_apart(model)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_across_documents_they_do(model: PreTrainedModel, attention: str) -> None:
    model.set_attn_implementation(attention)
    after_first = losses(model, [FIRST, SECOND], across=True)[-4:]
    assert (after_first - losses(model, [OTHER, SECOND], across=True)[-4:]).abs().max() > 1e-3


def test_gpt2_keeps_apart_and_bloom_is_found_out() -> None:
    torch.manual_seed(0)
    gpt2 = AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=2, n_positions=32, initializer_range=0.3)
    )
    assert keeps_documents_apart(gpt2)

    class WithoutPositions(torch.nn.Module):
        """A model that takes position ids and does nothing with them."""

        def __init__(self) -> None:
            super().__init__()
            config = BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.3)
            self.inner = AutoModelForCausalLM.from_config(config)
            self.config, self.device, self.dtype = config, torch.device("cpu"), torch.float32

        def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool) -> Any:
            return self.inner(input_ids=input_ids, use_cache=use_cache)

    assert not keeps_documents_apart(WithoutPositions())


def test_measures_are_over_every_token_once(model: PreTrainedModel) -> None:
    documents = [FIRST, OTHER, SECOND] * 5
    stream = chain_documents(documents, start=0, end=0)
    loss, accuracy = score_windows(model, stream.cut_windows(7), 1)
    assert sum(loss.weights) == sum(accuracy.weights) == sum(len(document) + 1 for document in documents)
    whole, _ = score_windows(model, stream.cut_windows(len(stream.inputs)), 1)
    by_hand = sum(float(losses(model, [document]).sum()) for document in documents)
    assert abs(sum(whole.sums) - by_hand) < 1e-3 * by_hand
