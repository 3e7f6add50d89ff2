"""Checks a base model's folder before any job meets it: each problem is one sentence that says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from trainer.contract.family import FamilyCard
from trainer.contract.rows import ChatRow
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.models.families import describe_family, empty_model, find_family, require_trainable
from trainer.engine.models.load import language_class, load_config, load_tokenizer, require_weights
from trainer.engine.models.weights import count_weights, invalid_base
from trainer.engine.scoring.head import limit_head_input
from trainer.kit.errors import TrainerError, is_machine_fault

CONFIG_NAME = "config.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json", "spiece.model")
_CONVERSATION = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
_SHOWN = 3
# What a change of the last token may do to the outputs before it: rounding in bfloat16.
_CAUSAL_TOLERANCE = 0.05


def check_base(folder: Path) -> FamilyCard:
    """Return what is known of the base in a folder, after looking at each of its files; weights are not loaded.

    `parameters` is counted from the weights' headers. Raises TrainerError (`base_not_found`, `invalid_base_model`,
    `unsupported_chat_template`), whose sentence names the file and the way out.
    """
    require_config(folder)
    config = load_config(folder)
    require_trainable(config)
    tokenizer = check_tokenizer(folder)
    require_rows_for_tokens(config, tokenizer)
    parameters = count_weights(folder)
    return describe_family(config).model_copy(update={"parameters": parameters})


def check_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the base's tokenizer, whose chat template renders a plain conversation and which has an end token."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise invalid_base(
            "it has no tokenizer files: copy tokenizer.json and tokenizer_config.json from the model's source into the "
            "folder"
        )
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        raise invalid_base(
            "its tokenizer has neither an end token nor a padding token, so that no answer could end: state eos_token "
            "in tokenizer_config.json"
        )
    try:
        # For its errors alone: a base with a broken template is refused here and not in every job. One without any can
        # be pre-trained.
        if tokenizer.chat_template:
            ChatTemplate(tokenizer, folder=folder)
    except TrainerError:
        raise
    except Exception as error:
        # A template is a program of whoever made the model, and can raise anything.
        raise TrainerError(
            "unsupported_chat_template",
            f"The base model's chat template fails on a plain conversation ({type(error).__name__}: "
            f"{_first_line(error)}): give the folder another chat_template.jinja.",
            param="model",
        ) from error
    return tokenizer


def load_checked(folder: Path) -> PreTrainedModel:
    """Load the base's weights once as jobs will load them, and return the model.

    Raises TrainerError (`invalid_base_model`) if files lack a weight, which transformers would draw at random, or if
    a family that is not in the table turns out not to write from left to right.
    """
    config = load_config(folder)
    kind = language_class(config)
    try:
        model, report = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype="auto", output_loading_info=True
        )
    except Exception as error:
        if is_machine_fault(error):
            raise
        # Each family's own code reads the weights, and what it raises about them is about this folder.
        raise invalid_base(f"its weights do not load ({type(error).__name__}: {_first_line(error)})") from error
    require_weights(report)
    if find_family(config) is None:
        _require_causal(model)
    return model


def require_config(folder: Path) -> None:
    """Raise TrainerError (`base_not_found`, `invalid_base_model`) if a folder has no usable config.json."""
    if not folder.is_dir():
        raise base_not_found(f"there is no folder {folder.name}")
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise base_not_found(f"the folder {folder.name} has no {CONFIG_NAME}")
    try:
        described: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise invalid_base(f"its {CONFIG_NAME} is not valid JSON ({error}): copy it again from the source") from error
    if not isinstance(described, dict) or "model_type" not in described:
        raise invalid_base(f"its {CONFIG_NAME} names no model_type: copy it again from the model's source")


def require_rows_for_tokens(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer with control tokens, or plain ones, that the embedding has no row for.

    A token that no text becomes, such as an image's place in a text model, may lie beyond it.
    """
    embeddings: Any = empty_model(config).get_input_embeddings()
    rows = int(embeddings.weight.shape[0])
    added = tokenizer.added_tokens_decoder
    plain = {number: word for word, number in tokenizer.get_vocab().items() if number not in added}
    written = _tokens_of_conversation(tokenizer)
    control = [tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id]
    used = {*plain, *written, *(number for number in control if isinstance(number, int))}
    beyond = sorted(number for number in used if number >= rows)
    if beyond:
        examples = ", ".join(f"{tokenizer.convert_ids_to_tokens(number)} ({number})" for number in beyond[:_SHOWN])
        raise invalid_base(
            f"its tokenizer has {len(beyond)} token(s) beyond the embedding's {rows} rows, such as {examples}: use the "
            "tokenizer that belongs to these weights, or enlarge the embedding (resize_token_embeddings) and save both"
        )


def _tokens_of_conversation(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the tokens that the template writes around a conversation, none if there is no template."""
    if not tokenizer.chat_template:
        return set()
    row = ChatRow.model_validate({"messages": _CONVERSATION})
    return {number for sequence in ChatTemplate(tokenizer).encode_row(row).sequences for number in sequence.ids}


def _require_causal(model: PreTrainedModel) -> None:
    """Refuse a family whose outputs at a place depend on what comes later: training would see the answer."""
    first = torch.tensor([[5, 6, 7, 8, 9]], device=model.device)
    second = torch.tensor([[5, 6, 7, 8, 3]], device=model.device)
    with torch.no_grad(), limit_head_input(model, lambda hidden: hidden[:, :-1]):
        one, two = (model(input_ids=ids, use_cache=False).logits.float() for ids in (first, second))
    if float((one - two).abs().max()) > _CAUSAL_TOLERANCE * max(1.0, float(one.abs().max())):
        raise invalid_base(
            f"models of the family {model.config.model_type} read a text in both directions, where a conversation is "
            "trained from left to right"
        )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")


def base_not_found(reason: str) -> TrainerError:
    """Return the error that says which part of a base's source is not there."""
    return TrainerError("base_not_found", f"The base model's source is missing: {reason}.", param="model")
