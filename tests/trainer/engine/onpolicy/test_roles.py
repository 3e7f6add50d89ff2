"""Four roles on one base: gradients go where they should, and nothing else moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

from trainer.engine.models.load import load_model
from trainer.engine.onpolicy.forward import (
    collate_responses,
    hidden_states,
    last_token_scores,
    response_log_probs,
    response_values,
)
from trainer.engine.onpolicy.roles import Roles, load_reward
from trainer.kit.errors import TrainerError

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

PROMPTS, RESPONSES = [(5, 6, 7), (8, 9)], [(10, 11, 2), (12, 13, 14, 15)]


def shaken(model: torch.nn.Module, word: str) -> None:
    """Give adapters other weights than their neutral ones."""
    torch.manual_seed(11)
    for name, parameter in model.named_parameters():
        if "lora_B" in name and word in name:
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.fixture(scope="module")
def reward_folder(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model as PEFT itself writes it, on the tiny base."""
    folder = tmp_path_factory.mktemp("reward")
    torch.manual_seed(3)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=1)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS"))
    shaken(model, "default")
    model.save_pretrained(str(folder))
    return folder


def policy(tiny_base: Path, seed: int = 1) -> PeftModel:
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(tiny_base, "float32"), config)
    assert isinstance(model, PeftModel)
    return model


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def test_the_reward_on_the_shared_base_scores_as_peft_s_own_class(tiny_base: Path, reward_folder: Path) -> None:
    theirs = AutoPeftModelForSequenceClassification.from_pretrained(str(reward_folder), num_labels=1).eval()
    batch = collate_responses(PROMPTS, [(10, 11, 12), (12, 13, 14, 15)], 2, "cpu")
    with torch.no_grad():
        expected = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
    model = policy(tiny_base).eval()
    shaken(model, "default")
    roles = Roles(model, reward=load_reward(reward_folder, model), continued=False, seed=1)
    assert roles.reward is not None
    with torch.no_grad(), roles.act_as("reward") as acting:
        found = last_token_scores(acting, roles.reward.head, batch)
        plain = last_token_scores(acting, roles.value_head, batch)
    assert torch.allclose(found, expected, atol=1e-6)
    assert float(expected.abs().max()) > 1e-3
    with torch.no_grad(), roles.act_as("value") as acting:
        assert torch.allclose(last_token_scores(acting, roles.value_head, batch), expected, atol=1e-6)
    assert torch.equal(plain, found)


def test_the_reward_on_a_base_of_its_own_scores_the_same(tiny_base: Path, reward_folder: Path) -> None:
    model = policy(tiny_base).eval()
    own = load_reward(reward_folder, load_model(tiny_base, "float32"))
    shared = load_reward(reward_folder, model)
    batch = collate_responses(PROMPTS, RESPONSES, 2, "cpu")
    roles = Roles(model, reward=own, continued=False, seed=1)
    assert "reward" in model.peft_config
    with torch.no_grad():
        with roles.act_as("reward") as acting:
            assert acting is own.model
            apart = last_token_scores(acting, own.head, batch)
        model.set_adapter("reward")
        assert torch.allclose(apart, last_token_scores(model, shared.head, batch), atol=1e-6)


@pytest.mark.parametrize("continued", [False, True], ids=["fresh", "continued"])
def test_only_the_acting_role_gets_gradients_and_the_reference_stays(
    tiny_base: Path, reward_folder: Path, continued: bool
) -> None:
    model = policy(tiny_base)
    if continued:
        shaken(model, "default")
    start = policy(tiny_base)
    if continued:
        shaken(start, "default")
    start.eval()
    roles = Roles(model, reward=load_reward(reward_folder, model), continued=continued, seed=1)
    batch = collate_responses(PROMPTS, RESPONSES, 2, "cpu")
    with torch.no_grad():
        at_start, _ = response_log_probs(start, batch, 1.0)
    before = snapshot(model)
    optimizer = torch.optim.SGD(list(roles.trained.values()), lr=0.5)

    with roles.act_as("policy") as acting:
        response_log_probs(acting, batch, 1.0)[0].sum().backward()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert touched <= set(roles.policy_parameters)
    assert roles.value_head.weight.grad is None
    with roles.act_as("value") as acting:
        response_values(acting, roles.value_head, batch).sum().backward()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert touched == {name for name in roles.trained if not name.startswith("value_head")}
    optimizer.step()

    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(".default." in name or ".value." in name for name in changed)
    with torch.no_grad():
        with roles.act_as("reference") as acting:
            reference, _ = response_log_probs(acting, batch, 1.0)
        with roles.act_as("policy") as acting:
            own, _ = response_log_probs(acting, batch, 1.0)
    assert torch.allclose(reference, at_start, atol=1e-6)
    assert not torch.allclose(own, at_start, atol=1e-3)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name in roles.trained if not name.startswith("value_head")}


def test_values_begin_at_zero_without_a_reward_model_and_shedding_leaves_the_policy(tiny_base: Path) -> None:
    model = policy(tiny_base)
    shaken(model, "default")
    roles = Roles(model, reward=None, continued=True, seed=1)
    batch = collate_responses(PROMPTS, RESPONSES, 2, "cpu")
    with torch.no_grad():
        with roles.act_as("value") as acting:
            assert not response_values(acting, roles.value_head, batch).any()
        own = hidden_states(model, batch)
        roles.drop_other_adapters()
        assert torch.equal(own, hidden_states(model, batch))
    assert list(model.peft_config) == ["default"]


def test_an_adapter_without_a_score_head_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    policy(tiny_base).save_pretrained(str(tmp_path))
    with pytest.raises(TrainerError, match="no score head") as caught:
        load_reward(tmp_path, policy(tiny_base))
    assert caught.value.code == "incompatible_reward_model"
