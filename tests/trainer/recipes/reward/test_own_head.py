"""A reward model on a family that transformers has no class with a score head for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tests.fixtures.tiny_families import make_tiny_config, make_tiny_family
from tests.trainer.recipes.reward.jobs import trained_reward
from trainer.contract.rows import ChatRow
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.data.row_renderer import RowRenderer
from trainer.engine.models.load import load_model, load_tokenizer
from trainer.engine.onpolicy.forward import collate_responses, last_token_scores
from trainer.engine.onpolicy.roles import load_reward
from trainer.engine.reward.classifier import classifier_class, has_score_class
from trainer.engine.reward.last_turn import last_turn
from trainer.engine.reward.model import load_classifier
from trainer.engine.reward.scorer import ResponseScorer
from trainer.exporting.merging import merge_model
from trainer.kit.errors import TrainerError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

# A dense family, experts, a state, and a tower for images.
OWN = ["granite", "llama4_text", "mamba", "mistral3"]


@pytest.mark.parametrize("kind", OWN)
def test_a_family_without_a_class_has_one_made_for_it(kind: str, tmp_path: Path) -> None:
    assert not has_score_class(make_tiny_config(kind))
    base = make_tiny_family(kind, tmp_path / "b")
    model, causal = load_classifier(base, "float32", 2), load_model(base, "float32")
    weights = dict(causal.named_parameters())
    own = dict(model.named_parameters())
    assert own.pop("score.weight").shape == (1, 64)
    # The backbone alone, under the names that the language model has.
    assert own.keys() <= weights.keys()
    assert weights.keys() - own.keys() <= {"lm_head.weight"}
    assert all(torch.equal(own[name], weights[name]) for name in own)
    assert model.get_output_embeddings() is None


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text", "gpt2"])
def test_a_family_with_a_class_keeps_transformers_own(kind: str) -> None:
    assert classifier_class(make_tiny_config(kind)) is AutoModelForSequenceClassification


@pytest.mark.slow
def test_its_scores_are_the_same_in_the_scorer_and_beside_a_policy(tmp_path: Path) -> None:
    base = make_tiny_family("granite", tmp_path / "b")
    adapter = trained_reward(tmp_path / "job", base, n_epochs=1)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"
    assert "base_model.model.score.weight" in load_file(adapter / "adapter_model.safetensors")
    card = (adapter / "README.md").read_text()
    assert "burnish score" in card
    assert "AutoModelForSequenceClassification" not in card

    texts = ["好", "我很好, 谢谢! 😀", "No, and no again.", "Gladly, and at some length, too. " * 3]
    rows = [
        ChatRow.model_validate(
            {"messages": [{"role": "user", "content": "你好吗?"}, {"role": "assistant", "content": text}]}
        )
        for text in texts
    ]
    scores = ResponseScorer(base, adapter, "float32").score_conversations([rows])[0]
    template = ChatTemplate(load_tokenizer(adapter), folder=base)
    renderer = RowRenderer(template, filename="a.jsonl", param="input")
    ids = [list(renderer.encode_sequence(last_turn(row)).input_ids) for row in rows]
    reward = load_reward(adapter, load_model(base, "float32"))
    batch = collate_responses([row[:3] for row in ids], [row[3:] for row in ids], 2, "cpu")
    with torch.no_grad():
        beside = last_token_scores(cast(Any, reward.model), reward.head, batch).tolist()
    assert scores == pytest.approx(beside, abs=1e-5)
    assert len(set(beside)) == len(texts)

    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "base").symlink_to(base)
    (folder / "source").symlink_to(adapter)
    with pytest.raises(TrainerError, match="cannot be merged: transformers has no class") as caught:
        merge_model("reward", folder)
    assert caught.value.code == "unsupported_export"
