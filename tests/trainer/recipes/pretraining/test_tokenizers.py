from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trainer.contract.methods.pretraining import TrainedTokenizer
from trainer.contract.rows import Message
from trainer.engine.chat_template.render import ChatTemplate
from trainer.recipes.pretraining.tokenizers import (
    END,
    PAD,
    SPECIALS,
    document_ends,
    make_tokenizer,
    split_text,
    tokenize_document,
)

TEXT = "天气很好。\r\n  Ünïcödé 🙂👩‍👩‍👧\tמזג\n\n<|im_end|> is text here <|endoftext|>\n"
CHOICES = ["byte", "char", TrainedTokenizer(type="bpe", vocabulary=320)]


def made(choice: str | TrainedTokenizer, folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer as it comes back from a folder."""
    make_tokenizer(choice, [TEXT * 3, "abc"], 64, Path("nowhere")).save_pretrained(str(folder))
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_any_script_comes_back(choice: str | TrainedTokenizer, tmp_path: Path) -> None:
    tokenizer = made(choice, tmp_path)
    ids = tokenize_document(tokenizer, TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert not set(ids) & set(tokenizer.convert_tokens_to_ids(list(SPECIALS)))
    assert document_ends(tokenizer) == (tokenizer.eos_token_id, tokenizer.eos_token_id)
    assert (tokenizer.eos_token, tokenizer.pad_token) == (END, PAD)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_later_job_can_train_on_conversations(choice: str | TrainedTokenizer, tmp_path: Path) -> None:
    chat = ChatTemplate(made(choice, tmp_path))
    prompt = chat.encode_prompt([Message(role="user", content="很好")], None)
    assert prompt.text == "<|im_start|>user\n很好<|im_end|>\n<|im_start|>assistant\n"
    assert chat.end_of_turn == "<|im_end|>"
    assert chat.tokenizer.decode(list(prompt.ids)) == prompt.text


def test_characters_and_bytes_are_one_token_each() -> None:
    characters = make_tokenizer("char", [TEXT], 64, Path("nowhere"))
    assert len(tokenize_document(characters, TEXT)) == len(TEXT)
    assert len(tokenize_document(make_tokenizer("byte", [TEXT], 64, Path("nowhere")), TEXT)) == len(TEXT.encode())
    assert characters.convert_ids_to_tokens(tokenize_document(characters, "好Ω")) == ["好", "<|unk|>"]


def test_trained_merges_follow_the_text() -> None:
    texts = ["the weather and the sea\n" * 50]
    tokenizer = make_tokenizer(TrainedTokenizer(type="bpe", vocabulary=300), texts, 64, Path("nowhere"))
    assert 260 < len(tokenizer) <= 300
    assert tokenizer.tokenize(" the weather") == ["Ġthe", "Ġweather"]
    again = make_tokenizer(TrainedTokenizer(type="bpe", vocabulary=300), texts, 64, Path("nowhere"))
    assert again.get_vocab() == tokenizer.get_vocab()


@given(st.text(alphabet="a b\n好", max_size=80), st.integers(1, 20))
def test_parts_are_the_text(text: str, size: int) -> None:
    assert "".join(split_text(text, size)) == text


def test_parts_have_the_whole_text_s_tokens() -> None:
    tokenizer = make_tokenizer(TrainedTokenizer(type="bpe", vocabulary=320), [TEXT * 3], 64, Path("nowhere"))
    text = "One line,\n\n  another 好\nand the end.\n" * 20
    cut = [token for part in split_text(text, 50) for token in tokenize_document(tokenizer, part)]
    assert cut == tokenize_document(tokenizer, text)
