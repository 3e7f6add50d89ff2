"""Tokenizers for new models: one token a byte, one a character, or byte-pair encoding trained on the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from trainer.contract.methods.pretraining import TrainedTokenizer
from trainer.engine.models.load import load_tokenizer
from trainer.kit.errors import TrainerError

END, PAD, TURN, TURN_END, UNKNOWN = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"
SPECIALS = (END, PAD, TURN, TURN_END)
# ChatML, so that later jobs can start from the new model with conversations.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# What that template writes besides the messages: a tokenizer of characters has to know it in any script.
CHAT_CHARACTERS = "system user assistant tool\n"
# A longer document is tokenized in parts, because a tokenizer's working memory is a hundred times its text.
PART_CHARACTERS = 1 << 20


def make_tokenizer(
    choice: str | TrainedTokenizer, texts: Sequence[str], context: int, base: Path
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a new model; the same texts give the same one.

    Raises TrainerError (`invalid_base_model`) if the base's cannot be read.
    """
    if choice == "base":
        tokenizer = load_tokenizer(base)
        tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATE
        return tokenizer
    if isinstance(choice, TrainedTokenizer):
        backend = _train_bpe(texts, choice.vocabulary)
    else:
        backend = _byte_tokenizer() if choice == "byte" else _character_tokenizer(texts)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        bos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN if choice == "char" else None,
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def tokenize_document(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of a document. Words like `<|im_end|>` in it are text, never special tokens."""
    ids: list[int] = []
    for part in split_text(text, PART_CHARACTERS):
        ids += tokenizer(part, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return ids


def split_text(text: str, size: int) -> Iterable[str]:
    """Cut a long text after line ends, where the next line begins with a letter or the like.

    Tokenizers end a word there anyway, so that the parts' tokens are the whole text's.
    """
    place = 0
    while len(text) - place > size:
        cut = place + size
        while cut < len(text) and not (text[cut - 1] == "\n" and not text[cut].isspace()):
            cut += 1
        yield text[place:cut]
        place = cut
    if place < len(text):
        yield text[place:]


def document_ends(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the tokens in front of and behind a document: what the tokenizer begins texts with, and its end token.

    Raises TrainerError (`invalid_base_model`) if it has no end token.
    """
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise TrainerError(
            "invalid_base_model", "The base's tokenizer has no end token to put between documents.", param="model"
        )
    opening = tokenizer("a")["input_ids"]
    begins = isinstance(tokenizer.bos_token_id, int) and opening[:1] == [tokenizer.bos_token_id]
    return (int(opening[0]) if begins else end), end


def _byte_tokenizer() -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, *sorted(_byte_alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _character_tokenizer(texts: Sequence[str]) -> Tokenizer:
    characters = sorted(set(CHAT_CHARACTERS).union(*texts))
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, UNKNOWN, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(UNKNOWN, special=True, normalized=False)])
    return tokenizer


def _train_bpe(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(_byte_alphabet()),
        show_progress=False,
    )
    cut = (part for text in texts for part in split_text(text, PART_CHARACTERS))
    tokenizer.train_from_iterator(cut, trainer)
    return tokenizer


def _byte_alphabet() -> list[str]:
    return pre_tokenizers.ByteLevel.alphabet()
