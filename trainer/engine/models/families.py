"""What each architecture needs: which layers take an adapter, how it samples, where a score head goes.

`family_table` has an entry for each of transformers' families; one that is not there is looked at, and said to be so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trainer.contract.family import AdapterTargets, CacheKind, FamilyCard, LayerGroup, MethodFit
from trainer.contract.methods import METHODS_BY_TYPE
from trainer.engine.models.family_table import FAMILIES, Family
from trainer.engine.models.load import context_length, language_class
from trainer.kit.errors import TrainerError

# What a router and its like are called: what decides over experts, and is never a target of an adapter.
_ROUTER = re.compile(r"(^|\.)(router|gate|gating|expert_gate|shared_expert_gate|wg)(\.(layer|classifier|gate|proj))?$")
_ROUTES = "a router, which chooses experts: training it would unbalance them"
_UNREAD = "the family reads these weights without calling the layer: an adapter on it would have no effect"
_NOT_LANGUAGE = "not a part of the language model: training on text leaves it as it is"
_EXPERTS = "experts, stacked in one tensor: lora.experts adapts them"
_NOT_ASKED = "not among lora.target_modules"
_SPECIAL_LAYER = "a layer of the family's own kind that takes no adapter"
_FREE = ("", _NOT_ASKED)
# Classes with a forward of their own that is a linear layer's.
_LIKE_LINEAR = ("FalconLinear",)
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")
EXPERT_WARNING = (
    "lora.experts adapts the stacked matrices of the experts. transformers with PEFT loads such an adapter; llama.cpp "
    "does not, and vLLM and SGLang do for few families: export the merged model to serve it there."
)


@dataclass(frozen=True)
class TargetLayers:
    """Full names of the layers and stacked expert tensors that get an adapter, and both lists for people."""

    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    summary: AdapterTargets


def find_family(config: PreTrainedConfig) -> Family | None:
    """Return the table's entry for a configuration's family, None if it has none."""
    return FAMILIES.get(config.model_type)


def cache_kind(config: PreTrainedConfig) -> CacheKind:
    """Return what the family keeps between two tokens; of an unknown one nothing, which is slow and always right."""
    family = find_family(config)
    return family.cache if family else "none"


def find_backbone(model: nn.Module) -> nn.Module:
    """Return the part of a causal model in front of its head, by whichever name its family has for it."""
    return cast(nn.Module, getattr(model, backbone_name(model)))


def backbone_name(model: nn.Module) -> str:
    """Return the backbone's attribute: the prefix that the class states, or the child that has the embeddings."""
    prefix = str(getattr(model, "base_model_prefix", ""))
    if prefix and isinstance(getattr(model, prefix, None), nn.Module):
        return prefix
    embeddings = cast(Any, model).get_input_embeddings()
    return next(name for name, child in model.named_children() if any(part is embeddings for part in child.modules()))


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the causal model on torch's `meta` device: every layer is there, no weight is.

    Raises TrainerError (`invalid_base_model`) if transformers cannot build it from this configuration.
    """
    kind = language_class(config)
    try:
        with torch.device("meta"):
            return kind.from_config(config, trust_remote_code=False)
    except Exception as error:
        # Whatever a family's constructor raises about a configuration is about that configuration.
        first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise TrainerError(
            "invalid_base_model",
            f"The base model's config.json does not describe a model that transformers can build: "
            f"{type(error).__name__}: {first_line}",
            param="model",
        ) from error


def find_targets(
    model: nn.Module, *, names: Sequence[str] | None = None, experts: bool = False, skip: Sequence[str] = ()
) -> TargetLayers:
    """Return which layers of a model without adapters get one.

    `names` are ends of names as PEFT takes them, None for every linear layer of the language model. Never a router,
    a layer whose weights the family reads past it, the output layer, or a tower for images; `skip` names children
    that are trained as they are, such as a score head. Raises TrainerError (`invalid_hyperparameters`) if one of
    `names` finds nothing that can take an adapter, or if `experts` finds none.
    """
    family, head = find_family(cast(Any, model).config), cast(Any, model).get_output_embeddings()
    language = {id(part) for part in _language_part(model).modules()}
    modules: list[_NamedLayer] = []
    left_out: list[_NamedLayer] = []
    for name, part in model.named_modules():
        if not isinstance(part, (nn.Linear, Conv1D)) or part is head or name.partition(".")[0] in skip:
            continue
        reason = _reason_against(name, part, family) if id(part) in language else _NOT_LANGUAGE
        if not reason and names is not None and not ends_with(name, names):
            reason = _NOT_ASKED
        (left_out if reason else modules).append(_NamedLayer(name, part.weight.numel(), reason))
    stacked = find_experts(model)
    if names is not None:
        _require_matches(names, modules, left_out)
    if experts and not stacked:
        raise _wrong_lora(
            "The base model has no experts that are stacked in one tensor: leave lora.experts out. Experts that are "
            "layers of their own get an adapter anyway.",
            "lora.experts",
        )
    parameters = [_NamedLayer(name, size) for name, size in stacked.items()] if experts else []
    left_out += [] if experts else [_NamedLayer(name, size, _EXPERTS) for name, size in stacked.items()]
    summary = AdapterTargets(adapted=_group_layers([*modules, *parameters]), left_out=_group_layers(left_out))
    return TargetLayers(tuple(m.name for m in modules), tuple(p.name for p in parameters), summary)


def find_experts(model: nn.Module) -> dict[str, int]:
    """Return the names and sizes of tensors that hold all experts of a layer, one behind the other."""
    config = cast(Any, model).config
    family = find_family(config)
    counts = {getattr(config.get_text_config(), name, None) for name in _EXPERT_COUNTS} - {None}
    language = {id(part) for part in _language_part(model).modules()}
    return {
        f"{name}.{own}": parameter.numel()
        for name, part in model.named_modules()
        if id(part) in language and not isinstance(part, nn.Conv1d)
        for own, parameter in part.named_parameters(recurse=False)
        if (
            ends_with(f"{name}.{own}", family.experts)
            if family is not None
            else parameter.dim() == 3 and parameter.shape[0] in counts
        )
    }


def describe_family(config: PreTrainedConfig) -> FamilyCard:
    """Return what is known of a base from its configuration alone; it reads no weights.

    Raises TrainerError (`invalid_base_model`) if transformers cannot build the model.
    """
    family = find_family(config)
    if family is not None and family.refused:
        return _make_refusal_card(config, family)
    model = empty_model(config)
    targets = find_targets(model)
    left_out = targets.summary.left_out
    experts = tuple(find_experts(model))
    towers = any(group.reason == _NOT_LANGUAGE for group in left_out)
    return FamilyCard(
        family=config.model_type,
        known=family is not None,
        model_class=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        context_length=context_length(config),
        targets=targets.summary,
        linear=_last_names(targets.modules),
        routers=_last_names(group.name for group in left_out if group.reason == _ROUTES),
        experts=_last_names(experts, parts=2),
        cache=cache_kind(config),
        sliding_window=getattr(config.get_text_config(), "sliding_window", None),
        reads_images=towers,
        methods={name: MethodFit(works=True) for name in METHODS_BY_TYPE},
        notes=_card_notes(config, family, experts=bool(experts), towers=towers),
    )


def require_trainable(config: PreTrainedConfig) -> None:
    """Raise TrainerError (`invalid_base_model`) if models of the family cannot be trained, with the reason."""
    family = find_family(config)
    if family is not None and family.refused:
        raise TrainerError("invalid_base_model", _refusal(config, family), param="model")
    # For its error alone: a configuration that no class is made for.
    language_class(config)


def adapter_warnings(config: PreTrainedConfig, targets: AdapterTargets, *, experts: bool) -> list[str]:
    """Return what somebody who orders an adapter of these targets has to know."""
    warnings: list[str] = []
    if find_family(config) is None:
        warnings.append(_unknown_family(config))
    if experts:
        warnings.append(EXPERT_WARNING)
    elif targets.experts_left_out:
        frozen = sum(group.parameters for group in targets.left_out if group.reason == _EXPERTS)
        warnings.append(
            f"The experts' matrices, {frozen:,} of the base's parameters, get no adapter: lora.experts adapts them."
        )
    return warnings


@dataclass(frozen=True)
class _NamedLayer:
    name: str
    parameters: int
    reason: str = ""


def _language_part(model: nn.Module) -> nn.Module:
    decoder = cast(Any, model).get_decoder()
    embeddings = cast(Any, model).get_input_embeddings()
    # transformers goes by names, which are some families' names for the whole model or for their head.
    is_language = decoder is not model and any(part is embeddings for part in decoder.modules())
    return decoder if is_language else find_backbone(model)


def _reason_against(name: str, part: nn.Module, family: Family | None) -> str:
    if _ROUTER.search(name) or (family is not None and ends_with(name, family.routers)):
        return _ROUTES
    if family is not None and any(f".{own}." in f".{name}." for own in family.left_out):
        return _UNREAD
    # A class of the family's own may use its weights in another way than a linear layer does.
    ordinary = type(part).forward in (nn.Linear.forward, Conv1D.forward) or type(part).__name__ in _LIKE_LINEAR
    return "" if ordinary else _SPECIAL_LAYER


def ends_with(name: str, ends: Sequence[str]) -> bool:
    """Return whether a layer's full name ends with one of these names, as PEFT compares them."""
    return any(f".{name}".endswith(f".{end}") for end in ends)


def _require_matches(names: Sequence[str], modules: Sequence[_NamedLayer], left_out: Sequence[_NamedLayer]) -> None:
    """Refuse names that no layer with an adapter has, and say why or which there are."""
    for end in names:
        if any(ends_with(layer.name, [end]) for layer in modules):
            continue
        against = next((layer.reason for layer in left_out if ends_with(layer.name, [end])), None)
        if against is not None:
            raise _wrong_lora(f"{end} cannot get an adapter: {against}. Leave it out.", "lora.target_modules")
        existing = ", ".join(_last_names([layer.name for layer in [*modules, *left_out] if layer.reason in _FREE]))
        missing = ", ".join(n for n in names if not any(ends_with(m.name, [n]) for m in modules))
        raise _wrong_lora(
            f"The base model has no target modules named {missing}; those it has are: {existing}.",
            "lora.target_modules",
        )


def _group_layers(layers: Iterable[_NamedLayer]) -> tuple[LayerGroup, ...]:
    """Join layers whose names differ in numbers alone."""
    groups: dict[tuple[str, str], list[int]] = {}
    for layer in layers:
        name = re.sub(r"\.\d+(?=\.|$)", ".*", layer.name)
        groups.setdefault((name, layer.reason), []).append(layer.parameters)
    return tuple(
        LayerGroup(name=name, count=len(sizes), parameters=sum(sizes), reason=reason)
        for (name, reason), sizes in groups.items()
    )


def _last_names(names: Iterable[str], *, parts: int = 1) -> tuple[str, ...]:
    return tuple(sorted({".".join(name.split(".")[-parts:]) for name in names}))


def _card_notes(config: PreTrainedConfig, family: Family | None, *, experts: bool, towers: bool) -> tuple[str, ...]:
    notes: list[str] = []
    if family is None:
        notes.append(_unknown_family(config))
    elif family.cache == "none":
        notes.append("It answers without a cache, by reading all text anew for each token, which is slow.")
    if experts:
        notes.append(f"Its experts get no adapter unless lora.experts is true. {EXPERT_WARNING}")
    if towers:
        notes.append("It is trained on text; rows with images or sound are refused.")
    return tuple(notes)


def _make_refusal_card(config: PreTrainedConfig, family: Family) -> FamilyCard:
    refusal = MethodFit(works=False, reason=_refusal(config, family))
    return FamilyCard(
        family=config.model_type,
        known=True,
        model_class="",
        parameters=0,
        context_length=context_length(config),
        targets=AdapterTargets(adapted=(), left_out=()),
        methods=dict.fromkeys(METHODS_BY_TYPE, refusal),
    )


def _refusal(config: PreTrainedConfig, family: Family) -> str:
    return f"Models of the family {config.model_type} cannot be trained here: {family.refused}. Choose another base."


def _unknown_family(config: PreTrainedConfig) -> str:
    return (
        f"The family {config.model_type} is not in Burnish's table: its layers were found by inspection, and it "
        "answers without a cache, which is slow."
    )


def _wrong_lora(message: str, param: str) -> TrainerError:
    return TrainerError("invalid_hyperparameters", message, param=param)
