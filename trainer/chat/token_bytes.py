"""The bytes of a token, also of one that is a part of a character."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """Finds bytes by the way in which the tokenizer writes them in its vocabulary."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        backend: Tokenizer = cast("Any", tokenizer).backend_tokenizer
        self._added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
        self._steps = _list_decoders(backend.decoder)
        self._byte_of = {character: byte for byte, character in enumerate(_byte_characters())}

    def find_bytes(self, token: int) -> bytes:
        """Return a token's bytes."""
        if token in self._added:
            return self._added[token].encode()
        name = str(self._tokenizer.convert_ids_to_tokens(token))
        if "ByteLevel" in self._steps and all(character in self._byte_of for character in name):
            return bytes(self._byte_of[character] for character in name)
        byte = _BYTE_FALLBACK.fullmatch(name) if "ByteFallback" in self._steps else None
        if byte is not None:
            return bytes([int(byte[1], 16)])
        # Alone, a token of SentencePiece is decoded without the space that it begins with.
        if self._steps & {"Metaspace", "Replace"}:
            return name.replace("\u2581", " ").encode()
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False)).encode()


def _list_decoders(decoder: Any) -> set[str]:
    """Return the kinds of a decoder's steps."""
    if decoder is None:
        return set()
    state: dict[str, Any] = json.loads(decoder.__getstate__())
    steps = cast("list[dict[str, Any]]", state.get("decoders") or [state])
    return {str(step["type"]) for step in steps}


def _byte_characters() -> list[str]:
    """Return the character that byte-level vocabularies write for each byte: itself if visible, else a later one."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    characters: list[str] = []
    shifted = 0x100
    for byte in range(0x100):
        characters.append(chr(byte if byte in visible else shifted))
        shifted += byte not in visible
    return characters
