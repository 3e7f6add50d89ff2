"""The class of a reward model: transformers' own for sequence classification, or one on the family's backbone.

Many families have no class of their own for it, and some have one with another head. For them a class is made here,
in the same layout: the backbone under its usual name, and a linear layer `score` beside it.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from trainer.engine.models.families import backbone_name, empty_model, find_backbone
from trainer.engine.reward.adapter import HEAD


def classifier_class(config: PreTrainedConfig) -> Any:
    """Return what has a `from_pretrained` that gives the backbone and a linear head named `score`.

    Raises TrainerError (`invalid_base_model`) if transformers cannot build a model from the configuration.
    """
    return AutoModelForSequenceClassification if has_score_class(config) else _make_class(_causal_class(config))


def has_score_class(config: PreTrainedConfig) -> bool:
    """Return whether transformers has a class for it whose backbone is the language model's, with a linear `score`."""
    if type(config) not in AutoModelForSequenceClassification._model_mapping:  # pyright: ignore[reportPrivateUsage]
        return False
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    causal = empty_model(config)
    name = backbone_name(causal)
    # Both have to be one tree with one set of names: an adapter trained in the one is loaded into the other.
    same = type(getattr(model, name, None)) is type(find_backbone(causal))
    return same and isinstance(getattr(model, HEAD, None), nn.Linear)


def _causal_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    return type(empty_model(config))


@functools.cache
def _make_class(causal: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Return a subclass of a family's causal class with a score head in the place of its LM head."""

    class BackboneWithScore(_ScoreHead, causal):  # pyright: ignore[reportGeneralTypeIssues] - a class made at run time
        pass

    # transformers goes by both: weights of older layouts are renamed for classes of certain names, and buffers that no
    # file has are initialised in its own modules alone.
    BackboneWithScore.__name__ = causal.__name__
    BackboneWithScore.__module__ = causal.__module__
    return BackboneWithScore


class _ScoreHead:
    """Exchanges the head of the class behind it."""

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # pyright: ignore[reportCallIssue]
        cast(Any, self).score = nn.Linear(config.get_text_config().hidden_size, 1, bias=False)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as the class behind this one does, then drop its head: some families' code asks for it while loading."""
        result = cast(Any, super()).from_pretrained(*args, **kwargs)
        model = result[0] if isinstance(result, tuple) else result
        backbone = find_backbone(model)
        for name, child in list(model.named_children()):
            if child is not backbone and name != HEAD:
                delattr(model, name)
        model._tied_weights_keys = None
        return cast(Any, result)

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the LM head while the weights are loaded, None when it is gone."""
        children = dict(cast(Any, self).named_children())
        has_head = len(children.keys() - {HEAD}) > 1
        return cast(Any, super()).get_output_embeddings() if has_head else None

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutputWithPast:
        """Return the score of each row at its last token by the mask, or by the padding's id without one."""
        model = cast(Any, self)
        padding = model.config.get_text_config().pad_token_id
        mask = (input_ids != padding).long() if attention_mask is None else attention_mask
        hidden = find_backbone(model)(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state
        last = (torch.arange(input_ids.shape[1], device=input_ids.device) * mask).argmax(1)
        scores = model.score(hidden)[torch.arange(len(last), device=last.device), last]
        return SequenceClassifierOutputWithPast(logits=cast(Any, scores))
