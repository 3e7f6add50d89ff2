"""Marks that are special tokens: each is one private character, so that the same letters in words stay words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transformers import PreTrainedTokenizerBase

_FIRST = 0x10FF00
"""The last characters of a plane of Unicode that is for private use."""
_MOST = 253


class TokenMarks:
    """Which special tokens are marks of an answer's form.

    `encode` turns a mark into the text that is looked for in answers: a special token into its private character. A
    mark that is no special token is looked for as it is written.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        # Longer ones first: a token may have another one in it.
        tokens = sorted(ids, key=len, reverse=True)[:_MOST]
        self._characters = {token: chr(_FIRST + place) for place, token in enumerate(tokens)}
        self._tokens = {ord(character): token for token, character in self._characters.items()}
        self.by_id = {ids[token]: character for token, character in self._characters.items()}
        """The private character by token id."""

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, marks: Iterable[str]) -> TokenMarks:
        """Find the special tokens in marks."""
        text = "\n".join(marks)
        added_tokens = tokenizer.added_tokens_decoder.items()
        return cls({str(token): number for number, token in added_tokens if token.special and str(token) in text})

    def encode(self, mark: str) -> str:
        """Return a mark as it stands in the text of an answer."""
        for token, character in self._characters.items():
            mark = mark.replace(token, character)
        return mark

    def decode(self, text: str) -> str:
        """Return text with its marks as they are written."""
        return text.translate(self._tokens) if self._tokens else text
