"""A token's bytes are those of the text, whatever the kind of vocabulary and wherever a character is cut."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.fixtures.tiny_model import make_tokenizer
from trainer.chat.token_bytes import TokenBytes

TEXT = "好的 ok 🙂\n\x00é ÿ\xad"


def make_byte_fallback_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer as SentencePiece's are: a mark for spaces, bytes for unknown characters."""
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "o", "k", "好", "\u2581ok"]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=False)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize("make", [make_tokenizer, make_byte_fallback_tokenizer])
def test_bytes_of_tokens_make_the_text(make: type[PreTrainedTokenizerFast]) -> None:
    tokenizer = make()
    token_bytes = TokenBytes(tokenizer)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    pieces = [token_bytes.find_bytes(token) for token in ids]
    assert b"".join(pieces) == TEXT.encode()
    assert b"\xf0" in pieces


def test_a_special_token_is_its_name() -> None:
    tokenizer = make_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert TokenBytes(tokenizer).find_bytes(end) == b"<|im_end|>"
