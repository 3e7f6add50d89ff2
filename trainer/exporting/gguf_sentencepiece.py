"""BPE in the way of sentencepiece, as of Llama 2, Mistral and Gemma: spaces are the character ▁, and what the
vocabulary lacks falls back to tokens of single bytes.

llama.cpp knows no merges here. It joins the neighbours that make the token with the best score, so that a token's
score is the rank of the merge that makes it, and every way of making the token must be a merge.
"""

from __future__ import annotations

import re
from typing import Any, cast

from gguf import TokenType
from transformers import PreTrainedTokenizerBase

from trainer.exporting.probes import CONVERSATION
from trainer.kit.errors import TrainerError

SPACE = "▁"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# Converted vocabularies leave out a few pairs of added tokens; a trainer that learns merges leaves out most.
_MISSING_SHARE = 0.01


def check_sentencepiece(described: dict[str, Any]) -> None:
    """Raise TrainerError (`unsupported_export`) if llama.cpp would make other tokens of the same vocabulary."""
    _find_prefix_scheme(described)
    vocabulary: dict[str, int] = described["model"]["vocab"]
    if sum(1 for token in vocabulary if _BYTE.fullmatch(token)) < 256:
        raise unsupported_tokenizer("it falls back to bytes, and has not a token for each of the 256")
    merges = {_split_merge(pair) for pair in described["model"]["merges"]}
    added = {token["content"] for token in described["added_tokens"]}
    pairs = [
        (token[:index], token[index:])
        for token in vocabulary.keys() - added
        for index in range(1, len(token))
        if token[:index] in vocabulary and token[index:] in vocabulary
    ]
    missing = sum(1 for pair in pairs if pair not in merges)
    if missing > _MISSING_SHARE * len(pairs):
        raise unsupported_tokenizer(
            f"its vocabulary allows {len(pairs)} merges, of which it has not {missing}, and llama.cpp, which merges by "
            "the tokens alone, would use them all"
        )


def list_scores(described: dict[str, Any], size: int) -> list[float]:
    """Return each token's score: minus the rank of the first merge that makes it, and less than all for the others."""
    vocabulary: dict[str, int] = described["model"]["vocab"]
    merges: list[Any] = described["model"]["merges"]
    scores = [-float(len(merges))] * size
    for rank, pair in reversed(list(enumerate(merges))):
        scores[vocabulary["".join(_split_merge(pair))]] = -float(rank)
    return scores


def refine_token_types(
    tokenizer: PreTrainedTokenizerBase, described: dict[str, Any], tokens: list[str], types: list[int]
) -> tuple[list[str], list[int]]:
    """Return tokens and types with bytes and the unknown token named as such, and added tokens written as in text."""
    after_spaces = {token["id"] for token in described["added_tokens"] if token["normalized"]}
    new_tokens, new_types = list(tokens), list(types)
    for number, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if number == tokenizer.unk_token_id:
            new_types[number] = TokenType.UNKNOWN
        elif _BYTE.fullmatch(token):
            new_types[number] = TokenType.BYTE
        elif kind == TokenType.USER_DEFINED and number in after_spaces:
            # llama.cpp looks for them before it writes spaces as ▁.
            new_tokens[number] = token.replace(SPACE, " ")
    return new_tokens, new_types


def adds_space_prefix(tokenizer: PreTrainedTokenizerBase, described: dict[str, Any]) -> bool:
    """Return whether llama.cpp is to put a space before each piece of text that follows a special token."""
    scheme = _find_prefix_scheme(described)
    if scheme != "first":
        return scheme == "each"
    # The space goes before the whole text alone, and nowhere if that begins with a special token, which llama.cpp has
    # no word for. What counts is the conversations.
    if not tokenizer.chat_template:
        return True
    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    first = cast("list[int]", tokenizer(cast(str, text), add_special_tokens=False)["input_ids"])[0]
    return first not in tokenizer.added_tokens_decoder


def _find_prefix_scheme(described: dict[str, Any]) -> str:
    """Return where a space is put before text: `each` piece between special tokens, the `first`, or `never`."""
    normalizers = _list_steps(described["normalizer"], "normalizers")
    cuts = _list_steps(described["pre_tokenizer"], "pretokenizers")
    replaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepends = {"type": "Prepend", "prepend": SPACE}
    if replaces in normalizers and all(cut["type"] == "Split" and cut["pattern"] == {"String": " "} for cut in cuts):
        # No space is left for the cut to find.
        if normalizers in ([prepends, replaces], [replaces]):
            return "each" if len(normalizers) == 2 else "never"
    elif not normalizers and [cut["type"] for cut in cuts] == ["Metaspace"]:
        cut = cuts[0]
        if cut["replacement"] == SPACE and not cut["split"] and cut["prepend_scheme"] in ("first", "never"):
            return cut["prepend_scheme"]
    kinds = ", ".join(step["type"] for step in [*normalizers, *cuts]) or "nothing"
    raise unsupported_tokenizer(f"it prepares text by {kinds} in a way that llama.cpp does not follow")


def _list_steps(step: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return step[name] if step["type"] == "Sequence" else [step]


def _split_merge(pair: str | list[str]) -> tuple[str, ...]:
    return tuple(pair.split(" ") if isinstance(pair, str) else pair)


def unsupported_tokenizer(reason: str) -> TrainerError:
    """Return the error that says why a tokenizer is not written."""
    return TrainerError("unsupported_export", f"The tokenizer cannot be written as GGUF: {reason}.", param="format")
