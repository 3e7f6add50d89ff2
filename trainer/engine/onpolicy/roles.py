"""Up to four roles on one base: policy, value and reward are adapters of one frozen model, two of them with a head.

The reference is the model at the start: the base with its adapters off, or a frozen copy of the adapter that the job
starts from. Adapters are state of the whole model, so one role acts at a time, through its backward pass too:
recomputed activations would otherwise come from another adapter.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel
from peft.utils import set_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from trainer.engine.reward.adapter import incompatible_reward_model, read_reward_adapter

Role = Literal["policy", "value", "reward", "reference", "base"]
POLICY, VALUE, REWARD, REFERENCE = "default", "value", "reward", "reference"


@dataclass
class RewardModel:
    """A frozen adapter named `reward` with its score head, on the policy's base or on one of its own."""

    model: PeftModel
    head: nn.Linear


class Roles:
    """The model with its adapters and heads; only policy, value adapter and value head are ever trained.

    Without a `critic` there is no value, and no head of it.
    """

    value_head: nn.Linear

    def __init__(
        self, model: PeftModel, *, reward: RewardModel | None, continued: bool, seed: int, critic: bool = True
    ) -> None:
        self.model = model
        self.reward = reward
        self._shared_reward = reward is not None and reward.model is model
        self._continued = continued
        silence_dropout(model)
        if continued:
            _copy_adapter(model, POLICY, REFERENCE)
        self.policy_parameters = _adapter_parameters(model, POLICY)
        self.value_parameters = self._add_critic(seed) if critic else {}
        self._switch_adapter(POLICY)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Everything that training changes, by name: the policy's adapter, the value's, and the value head."""
        return {**self.policy_parameters, **self.value_parameters}

    @contextmanager
    def act_as(self, role: Role) -> Iterator[PeftModel]:
        """Let one role act; hold it through the backward pass. Afterwards the policy acts again."""
        if role == "base" or (role == "reference" and not self._continued):
            with self._without_adapters():
                yield self.model
            return
        # On a base of its own, whose adapter nobody switches.
        if role == "reward" and not self._shared_reward:
            assert self.reward is not None
            yield self.reward.model
            return
        self._switch_adapter({"policy": POLICY, "value": VALUE, "reward": REWARD, "reference": REFERENCE}[role])
        try:
            yield self.model
        finally:
            self._switch_adapter(POLICY)

    def active_heads(self) -> list[nn.Linear]:
        """Return the value's and the reward's head, as far as there are any."""
        return [*([self.value_head] if self.value_parameters else []), *([self.reward.head] if self.reward else [])]

    def drop_other_adapters(self) -> None:
        """Leave the policy's adapter alone on the base, as the result is."""
        self._switch_adapter(POLICY)
        for name in (VALUE, REWARD, REFERENCE):
            if name in self.model.peft_config:
                self.model.delete_adapter(name)

    def _add_critic(self, seed: int) -> dict[str, nn.Parameter]:
        """Put the value's adapter and head on the model; return its parameters by name."""
        shared = self._shared_reward
        # PEFT draws from the global generator: a critic must not change what the policy is trained with.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # The value begins as the reward model, if they share a base: it is to predict that one's scores (N+
            # details).
            _copy_adapter(self.model, REWARD if shared else POLICY, VALUE, fresh=not shared)
        self.value_head = _value_head(self.model, self.reward if shared else None)
        return {**_adapter_parameters(self.model, VALUE), **_prefix_parameters("value_head", self.value_head)}

    @contextmanager
    def _without_adapters(self) -> Iterator[None]:
        # PEFT switches off every adapter's gradients here, and afterwards switches on those of the active one alone:
        # without the switch below the critic would train no more.
        with self.model.disable_adapter():
            yield
        self._switch_adapter(POLICY)

    def _switch_adapter(self, adapter: str) -> None:
        """Activate an adapter, then set back what that did to the other adapters' `requires_grad`."""
        self.model.set_adapter(adapter)
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for parameter in self.trained.values():
            parameter.requires_grad_(True)


def load_reward(folder: Path, model: PeftModel | PreTrainedModel, *, param: str = "reward.model") -> RewardModel:
    """Put a reward job's adapter, PEFT's SEQ_CLS layout, onto a causal model: the same base or one of its own.

    Raises TrainerError (`incompatible_reward_model`, naming `param`) if the adapter does not fit that base or has no
    score head.
    """
    adapter = read_reward_adapter(folder, param=param)
    plain = _causal_config(adapter.config)
    if isinstance(model, PeftModel):
        wrapped = model
        wrapped.add_adapter(REWARD, plain)
    else:
        wrapped = PeftModel(model, plain, adapter_name=REWARD)
    head = nn.Linear(adapter.head.shape[1], 1, bias=False, device=wrapped.device)
    width = cast(Any, wrapped.config).get_text_config().hidden_size
    # Exactly the same names: a layer that the file has no weights for would stay as PEFT drew it, without an error.
    own = {_without_adapter(name, REWARD) for name in _adapter_parameters(wrapped, REWARD)}
    if adapter.head.shape[1] != width or own != set(adapter.weights):
        raise incompatible_reward_model(
            "does not fit the base model: name the base that it was trained on", param=param
        )
    set_peft_model_state_dict(wrapped, adapter.weights, adapter_name=REWARD)
    with torch.no_grad():
        head.weight.copy_(adapter.head)
    head.requires_grad_(False)
    silence_dropout(wrapped)
    if wrapped is not model:
        wrapped.eval().requires_grad_(False)
    return RewardModel(wrapped, head)


def silence_dropout(model: nn.Module) -> None:
    """Switch dropout off for good: with it the ratio of new to old probabilities would be noise (N+ details)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            cast(Any, module).attention_dropout = 0.0


def _causal_config(config: LoraConfig) -> LoraConfig:
    plain = copy.deepcopy(config)
    plain.task_type = "CAUSAL_LM"
    # The head is kept beside the model: a causal model has no `score` for PEFT to save.
    plain.modules_to_save = None
    plain.inference_mode = False
    plain.lora_dropout = 0.0
    return plain


def _copy_adapter(model: PeftModel, source: str, target: str, *, fresh: bool = False) -> None:
    """Add an adapter of the same shape, with the same weights unless it is to be a `fresh` one."""
    model.add_adapter(target, _causal_config(cast(LoraConfig, model.peft_config[source])))
    if fresh:
        return
    origin = {_without_adapter(name, source): weights for name, weights in _adapter_parameters(model, source).items()}
    with torch.no_grad():
        for name, parameter in _adapter_parameters(model, target).items():
            parameter.copy_(origin[_without_adapter(name, target)])


def _without_adapter(name: str, adapter: str) -> str:
    """Return a parameter's name as PEFT's files have it; a layer of the base may have an adapter's name."""
    layer, mark, own = name.rpartition(".lora_")
    return layer + mark + ".".join(part for part in own.split(".") if part != adapter)


def _adapter_parameters(model: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    """Return an adapter's parameters by name: `….lora_A.<adapter>.weight` and its like."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        # Behind `.lora_`, because a layer of the base may have an adapter's name, such as `value`.
        if ".lora_" in name and adapter in name.rpartition(".lora_")[2].split(".")
    }


def _value_head(model: PeftModel, reward: RewardModel | None) -> nn.Linear:
    """Return the reward model's head with a bias, or zeros: values begin at zero, and so do their mistakes."""
    width = cast(Any, model.config).get_text_config().hidden_size
    head = nn.Linear(width, 1, device=model.device)
    nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.weight.copy_(reward.head.weight) if reward else nn.init.zeros_(head.weight)
    return head


def _prefix_parameters(prefix: str, module: nn.Module) -> dict[str, nn.Parameter]:
    return {f"{prefix}.{name}": parameter for name, parameter in module.named_parameters()}
