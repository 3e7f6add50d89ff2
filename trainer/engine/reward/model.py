"""The model with a score head in the layout of transformers and PEFT, read at each row's last real token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.contract.methods.base import Resolved
from trainer.engine.data.batches import batches_within, collate_sequences
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.models.adapters import add_adapter
from trainer.engine.models.load import load_config, load_model
from trainer.engine.reward.adapter import HEAD, incompatible_reward_model, read_reward_adapter
from trainer.engine.reward.classifier import classifier_class
from trainer.engine.scoring.evaluate import evaluation_mode
from trainer.kit.errors import TrainerError

HEAD_STD = 0.02


def load_classifier(base: Path, dtype: str, pad_id: int, quantization: str = "none") -> PreTrainedModel:
    """Load the base with a score head of one output, not yet drawn. Raises TrainerError (`invalid_base_model`)."""
    kind = classifier_class(load_config(base))
    model = load_model(base, dtype, quantization, auto=kind, num_labels=1)
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = pad_id
    # Scores are small differences, and bfloat16 has 8 bits for them.
    getattr(model, HEAD).to(torch.float32).register_forward_pre_hook(_as_float)
    return model


def new_reward_model(base: PreTrainedModel, resolved: Resolved, start: Path | None) -> PeftModel:
    """Wrap the classifier with an adapter, the start adapter's weights if there is one, and a head to train.

    The head is drawn from the seed, or the start's own if that is a reward model.
    """
    head: torch.nn.Linear = getattr(base, HEAD)
    # A generator of its own: the head does not depend on what else was drawn before.
    drawn = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(resolved.seed)) * HEAD_STD
    with torch.no_grad():
        head.weight.copy_(drawn)
        if isinstance(head.bias, torch.Tensor):
            head.bias.zero_()
    model = add_adapter(base, resolved, start=start, task_type="SEQ_CLS", modules_to_save=[HEAD])
    config = model.peft_config["default"]
    assert isinstance(config, LoraConfig)
    config.modules_to_save = [HEAD]  # PEFT names its own guesses as well, this one twice
    return model


def load_reward_model(base: Path, adapter: Path, dtype: str, pad_id: int) -> PeftModel:
    """Load a reward model as PEFT's AutoPeftModelForSequenceClassification does, from a base in a folder.

    Raises TrainerError (`incompatible_reward_model`) if the adapter is no reward model, or one on another base.
    """
    read_reward_adapter(adapter)
    classifier = load_classifier(base, dtype, pad_id)
    try:
        return PeftModel.from_pretrained(classifier, str(adapter)).eval()
    except (RuntimeError, ValueError) as error:
        raise incompatible_reward_model("does not fit the base model: name the base that it was trained on") from error


def last_scores(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return each row's score [n] at its last real token by the mask, whatever id the padding has."""
    caught: list[torch.Tensor] = []

    def catch_scores(_module: torch.nn.Module, _args: Any, output: torch.Tensor) -> None:
        caught.append(output)

    # The classifier would find the last token by the padding's id; the head shows the scores of all places.
    hook = getattr(model.get_base_model(), HEAD).register_forward_hook(catch_scores)
    try:
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    finally:
        hook.remove()
    last = batch["attention_mask"].sum(1) - 1
    return caught[0][torch.arange(len(last), device=last.device), last, 0].float()


def score_sequences(model: Any, rows: Sequence[TokenizedRow], pad_id: int) -> list[float]:
    """Return the rows' scores in their order, computed in batches of similar length without gradients.

    Raises TrainerError (`loss_not_finite`) if one is not a finite number.
    """
    scores = [math.nan] * len(rows)
    with evaluation_mode(model):
        for numbers in batches_within([len(row.input_ids) for row in rows], model.device.type):
            batch = collate_sequences([rows[number].input_ids for number in numbers], pad_id)
            found: list[float] = last_scores(model, {k: v.to(model.device) for k, v in batch.items()}).tolist()
            for number, value in zip(numbers, found, strict=True):
                if not math.isfinite(value):
                    raise TrainerError(
                        "loss_not_finite", f"The score of a response in line {rows[number].line} is not finite."
                    )
                scores[number] = value
    return scores


def separate_padding(tokenizer: PreTrainedTokenizerBase, last_ids: set[int]) -> bool:
    """Choose another padding token if the present one ends rows; return whether that was needed.

    transformers' classifiers read the score at the last token that is not padding: a row that ends with the padding
    token would be read one token too early.
    """
    if tokenizer.pad_token_id not in last_ids:
        return False
    # A special token if there is one: plain ones may end another text.
    special = [number for number, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    for number in [*special, *range(len(tokenizer))]:
        token = tokenizer.convert_ids_to_tokens(number)
        if number not in last_ids and isinstance(token, str):
            tokenizer.pad_token = token
            return True
    raise TrainerError("invalid_base_model", "The tokenizer has no token to fill up rows with.", param="model")


def _as_float(_module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (args[0].float(), *args[1:])
