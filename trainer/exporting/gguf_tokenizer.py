"""The tokenizer inside a GGUF file.

Of byte-level BPE, llama.cpp knows the way of cutting text into words by a name. BPE in the way of sentencepiece
(`gguf_sentencepiece.py`) has scores instead of merges.
"""

from __future__ import annotations

import json
from typing import Any

from gguf import GGUFValueType, GGUFWriter, Keys, TokenType
from transformers import PreTrainedTokenizerBase

from trainer.engine.models.portable import end_of_turn_id
from trainer.exporting.gguf_sentencepiece import (
    adds_space_prefix,
    check_sentencepiece,
    list_scores,
    refine_token_types,
    unsupported_tokenizer,
)

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Expressions of Hugging Face's tokenizer.json, and what llama.cpp calls the same cuts (llama-vocab.cpp).
_BY_PATTERN = {
    _CONTRACTIONS + r"\p{N}" + _REST: "qwen2",
    _CONTRACTIONS + r"\p{N}{1,3}" + _REST: "llama-bpe",
}


class GgufFileWriter(GGUFWriter):
    """Writes empty arrays too: a tokenizer of single bytes has no merges, and its readers ask for the list."""

    def _pack_val(
        self, val: Any, vtype: GGUFValueType, add_vtype: bool, sub_type: GGUFValueType | None = None
    ) -> bytes:
        if vtype == GGUFValueType.ARRAY and sub_type is not None and not val:
            kind = self._pack("I", vtype) if add_vtype else b""
            return kind + self._pack("I", sub_type) + self._pack("Q", 0)
        return super()._pack_val(val, vtype, add_vtype, sub_type)


def add_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Write vocabulary, merges, special tokens and chat template. `size` is the rows of the embedding.

    Raises TrainerError (`unsupported_export`) for a tokenizer that llama.cpp could not follow.
    """
    described = _describe_tokenizer(tokenizer)
    tokens, types = _list_vocabulary(tokenizer, size)
    if described["model"].get("byte_fallback"):
        check_sentencepiece(described)
        writer.add_tokenizer_model("llama")
        tokens, types = refine_token_types(tokenizer, described, tokens, types)
        writer.add_token_scores(list_scores(described, size))
        writer.add_add_space_prefix(adds_space_prefix(tokenizer, described))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_pre_tokenizer_name(described))
        writer.add_key_value(
            Keys.Tokenizer.MERGES,
            [_join_merge(pair) for pair in described["model"]["merges"]],
            GGUFValueType.ARRAY,
            GGUFValueType.STRING,
        )
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _add_specials(writer, tokenizer)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise TrainerError (`unsupported_export`) for a tokenizer that llama.cpp could not follow."""
    described = _describe_tokenizer(tokenizer)
    if described["model"].get("byte_fallback"):
        check_sentencepiece(described)
    else:
        _pre_tokenizer_name(described)


def _describe_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise unsupported_tokenizer("it is not one of the library tokenizers")
    described: dict[str, Any] = json.loads(backend.to_str())
    model = described["model"]
    if model["type"] != "BPE":
        raise unsupported_tokenizer(
            f"it is of the kind {model['type']}, and only byte-level BPE and BPE with a token for each byte are written"
        )
    normalizer = described["normalizer"]
    if normalizer is not None and normalizer["type"] != "NFC" and not model.get("byte_fallback"):
        raise unsupported_tokenizer(f"it rewrites text by {normalizer['type']} first")
    return described


def _pre_tokenizer_name(described: dict[str, Any]) -> str:
    """Return llama.cpp's name for the way in which text is cut before merging."""
    step: dict[str, Any] = described["pre_tokenizer"] or {"type": "none"}
    steps: list[dict[str, Any]] = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    kinds = [item["type"] for item in steps]
    last = steps[-1]
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        raise unsupported_tokenizer(f"it cuts text by {', '.join(kinds)}")
    if kinds == ["ByteLevel"] and (last["use_regex"] or not described["model"]["merges"]):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and last["use_regex"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not last["use_regex"]:
        name = _BY_PATTERN.get(steps[0]["pattern"].get("Regex", ""))
        if name is not None:
            return name
    raise unsupported_tokenizer(f"it cuts text by {', '.join(kinds)} with an expression that llama.cpp has no name for")


def _list_vocabulary(tokenizer: PreTrainedTokenizerBase, size: int) -> tuple[list[str], list[int]]:
    added = tokenizer.added_tokens_decoder
    names = {
        number: token
        for token, number in tokenizer.get_vocab().items()
        # Gemma 3's tokenizer has a mark for images that its models of text alone have no row for.
        if number < size or number not in added
    }
    if names and max(names) >= size:
        raise unsupported_tokenizer(f"it has {max(names) + 1} tokens and the model {size}")
    tokens: list[str] = []
    types: list[int] = []
    for number in range(size):
        # Rows that make a matrix's size a round number stand for no token.
        tokens.append(names.get(number, f"[PAD{number}]"))
        if number not in names:
            types.append(TokenType.UNUSED)
        elif number in added:
            types.append(TokenType.CONTROL if added[number].special else TokenType.USER_DEFINED)
        else:
            types.append(TokenType.NORMAL)
    return tokens, types


def _add_specials(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase) -> None:
    turn_end = end_of_turn_id(tokenizer)
    added = (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        # What ends an answer: a reader that knows one end token alone has to know this one.
        (tokenizer.eos_token_id if turn_end is None else turn_end, writer.add_eos_token_id),
        (turn_end, writer.add_eot_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
    )
    for number, add in added:
        if isinstance(number, int):
            add(number)
    begun = tokenizer("a")["input_ids"]
    assert isinstance(begun, list)
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and begun[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(len(begun) > 1 and begun[-1] == tokenizer.eos_token_id)


def _join_merge(pair: str | list[str]) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)
