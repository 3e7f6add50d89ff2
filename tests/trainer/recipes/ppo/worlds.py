"""A world small enough to be enumerated: a tiny vocabulary and answers of a few tokens."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.contract.methods.ppo import PpoHyperparameters
from trainer.engine.onpolicy.forward import collate_responses, response_log_probs
from trainer.engine.onpolicy.prompts import TokenizedPrompt
from trainer.engine.onpolicy.roles import Roles
from trainer.engine.onpolicy.rollout import RolloutSampling
from trainer.engine.onpolicy.scorers import Scorer
from trainer.engine.onpolicy.updates import OnPolicy, UpdateSettings
from trainer.recipes.ppo.iteration import Ppo

END, VOCABULARY, LONGEST = 0, 4, 3
PROMPT = TokenizedPrompt(1, (1, 2))


def tiny_policy(seed: int, *, rank: int = 8) -> PeftModel:
    """Return a random model with an adapter: its logits are scaled up, so that it prefers some tokens."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        tie_word_embeddings=False,
        eos_token_id=END,
        pad_token_id=END,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(8)
    model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))
    assert isinstance(model, PeftModel)
    return model.eval()


def sampling(**more: Any) -> RolloutSampling:
    given: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "stops": (END,), "pad_id": END}
    return RolloutSampling(**{**given, "max_new_tokens": LONGEST, **more})


def hyperparameters(**more: Any) -> PpoHyperparameters:
    given = {"reward": {"function": "length", "parameters": {"target": 1}}, "whiten_advantages": False}
    return PpoHyperparameters.model_validate({**given, **more})


def make_ppo(model: PeftModel, score: Scorer, seed: int = 1, **more: Any) -> Ppo:
    settings = {"batch_size": 64, "learning_rate": 3e-3, "weight_decay": 0.0, "max_grad_norm": 1.0}
    settings |= {name: more.pop(name) for name in list(more) if name in settings}
    given = hyperparameters(**more)
    roles = Roles(model, reward=None, continued=False, seed=seed)
    draw = sampling(temperature=given.temperature)
    return Ppo(roles, draw, score, given, UpdateSettings(seed=seed, **settings))


def completions() -> list[tuple[int, ...]]:
    """Return every answer: ended by END, or cut at the longest."""
    words = range(1, VOCABULARY)
    ended = [(*body, END) for size in range(LONGEST) for body in itertools.product(words, repeat=size)]
    return ended + list(itertools.product(words, repeat=LONGEST))


def rewards_of(seed: int) -> torch.Tensor:
    """Return r of each answer [answers]: the same world of every seed for PPO and for DPO."""
    return torch.randn(len(completions()), generator=torch.Generator().manual_seed(seed)).double()


@torch.no_grad()
def log_probabilities(ppo: OnPolicy[Any, Any], role: Any, answers: list[tuple[int, ...]]) -> torch.Tensor:
    """Return log π(answer) of each answer to PROMPT [answers]."""
    with ppo.roles.act_as(role) as model:
        batch = collate_responses([PROMPT.input_ids] * len(answers), answers, END, model.device)
        flat, _ = response_log_probs(model, batch, ppo.sampling.temperature)
    return torch.stack([part.double().sum() for part in flat.split([len(answer) for answer in answers])])


def objective(log_policy: torch.Tensor, log_reference: torch.Tensor, rewards: torch.Tensor, beta: float) -> float:
    """Return E[r] - beta · KL(policy ‖ reference), exactly."""
    return float((log_policy.exp() * (rewards - beta * (log_policy - log_reference))).sum())


def optimum(log_reference: torch.Tensor, rewards: torch.Tensor, beta: float) -> torch.Tensor:
    """Return log π*, π* ∝ π_ref · exp(r / beta)."""
    return (log_reference + rewards / beta).log_softmax(0)
