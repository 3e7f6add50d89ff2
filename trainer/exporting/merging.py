"""The model to export: the adapter merged into its base in float32, compared with base and adapter before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from trainer.contract.export import BASE_FOLDER, SOURCE_FOLDER
from trainer.contract.methods.base import Kinds
from trainer.engine.models.load import language_class, load_config, load_model, load_tokenizer
from trainer.engine.reward.classifier import has_score_class
from trainer.engine.reward.model import load_reward_model
from trainer.exporting.probes import Logits, make_probes, probe_model
from trainer.kit.errors import TrainerError

_TOKENIZER = "tokenizer_config.json"


@dataclass
class MergedModel:
    """A model whose weights hold everything. `trained` are the probes' logits before anything was merged."""

    kind: Kinds
    model: PreTrainedModel | None
    tokenizer: Tokenizer
    rows: list[list[int]]
    trained: list[Logits]
    merged: list[Logits]

    @property
    def weights(self) -> PreTrainedModel:
        """The model, until it was released."""
        assert self.model is not None
        return self.model

    @property
    def auto_class(self) -> Any:
        """The class of transformers that loads it."""
        return AutoModelForSequenceClassification if self.kind == "reward" else language_class(self.weights.config)

    def release_weights(self) -> None:
        """Let go of the weights."""
        self.model = None


def merge_model(kind: Kinds, folder: Path) -> MergedModel:
    """Load `source/` (on `base/`) in float32 and merge it. Raises TrainerError (`invalid_base_model`)."""
    source, base = folder / SOURCE_FOLDER, folder / BASE_FOLDER
    # Results of earlier releases, and whoever trained without a template, have the base's.
    tokenizer = load_tokenizer(source if (source / _TOKENIZER).is_file() else base)
    if kind == "model":
        model = load_model(source, "float32")
        rows = make_probes(tokenizer, model.config)
        trained = probe_model(model, rows)
        return MergedModel(kind, _prepare_for_saving(model), tokenizer, rows, trained, trained)
    adapted = _load_adapted(kind, base, source, tokenizer)
    rows = make_probes(tokenizer, cast(PreTrainedModel, adapted.get_base_model()).config)
    trained = probe_model(adapted, rows)
    merged = cast(PreTrainedModel, adapted.merge_and_unload())  # pyright: ignore[reportCallIssue]
    return MergedModel(kind, _prepare_for_saving(merged), tokenizer, rows, trained, probe_model(merged, rows))


def _load_adapted(kind: Kinds, base: Path, adapter: Path, tokenizer: Tokenizer) -> PeftModel:
    if kind == "reward":
        _require_score_class(base)
        assert isinstance(tokenizer.pad_token_id, int)
        return load_reward_model(base, adapter, "float32", tokenizer.pad_token_id)
    try:
        return PeftModel.from_pretrained(load_model(base, "float32"), str(adapter)).eval()
    except (RuntimeError, ValueError, KeyError, json.JSONDecodeError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainerError(
            "unsupported_export", f"The adapter does not fit its base model: {first_line}", param="model"
        ) from error


def _require_score_class(base: Path) -> None:
    config = load_config(base)
    if not has_score_class(config):
        raise TrainerError(
            "unsupported_export",
            f"A reward model on {config.model_type} cannot be merged: transformers has no class for this family with a "
            "score head, so that nothing could load it. `burnish score` takes the adapter as it is.",
            param="model",
        )


def _prepare_for_saving(model: PreTrainedModel) -> PreTrainedModel:
    """Prepare for saving: nothing to train, and the cache of keys and values on, as for whoever generates."""
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = True
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    torch.cuda.empty_cache()
    return model.eval()
