"""From renderings to tokens: prompt and answer apart, as generation has them, and typed control words as characters."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from trainer.engine.chat_template.control_words import TextMarks

_CONTEXT = 8
"""How many tokens before a piece are decoded with it, to see whether it is written as it is."""


class TextEncoder:
    """Tokenizes renderings piece by piece."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._newline = self._encode_text("\n", as_characters=False)
        one, two = (self._encode_text(letter, as_characters=False) for letter in "xy")
        self._added = set(tokenizer.added_tokens_decoder)
        # Control tokens that take the white space behind them along.
        self._greedy = {number for number, token in tokenizer.added_tokens_decoder.items() if token.rstrip}
        # Tokenizers of the SentencePiece kind put a space in front of every text.
        self._adds_space = self._decode_ids([*one, *two]) != self._decode_ids(one) + "y"

    def encode_segments(
        self, segments: Sequence[tuple[str, bool]], marks: TextMarks
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Return the tokens of marked texts, and of each token whether its text is trained."""
        ids: list[int] = []
        trained: list[bool] = []
        for text, keep in segments:
            for place, (piece, as_characters) in enumerate(marks.split_text(text)):
                if place == 0 and not keep and ids and ids[-1] in self._added and not as_characters:
                    tokens = self._encode_behind_control(piece, ids[-1])
                else:
                    tokens = self._encode_piece(piece, ids[-_CONTEXT:], as_characters=as_characters)
                ids.extend(tokens)
                trained.extend([keep] * len(tokens))
        return tuple(ids), tuple(trained)

    def _encode_behind_control(self, piece: str, control: int) -> list[int]:
        """Return what follows a turn as a whole prompt has it: behind a control token, tokenizers differ."""
        if not self._adds_space and control not in self._greedy:
            return self._encode_text(piece, as_characters=False)
        ids = self._encode_text(f"{self._tokenizer.convert_ids_to_tokens(control)}{piece}", as_characters=False)
        return ids[1:] if ids[:1] == [control] else self._encode_text(piece, as_characters=False)

    def _encode_piece(self, piece: str, context: Sequence[int], *, as_characters: bool) -> list[int]:
        """Return a piece's tokens behind others, or at a beginning if there is no context."""
        tokens = self._encode_text(piece, as_characters=as_characters)
        if not context or not self._adds_space:
            return tokens
        behind_newline = self._encode_text(f"\n{piece}", as_characters=as_characters)
        if behind_newline[: len(self._newline)] == self._newline:
            inner = behind_newline[len(self._newline) :]
            # Up to the first control token: behind one, a whole prompt has the space too.
            words = inner[: next((place for place, token in enumerate(inner) if token in self._added), len(inner))]
            before_piece = self._decode_ids(context)
            if piece.startswith(self._decode_ids([*context, *words])[len(before_piece) :]):
                return inner
        return tokens

    def _encode_text(self, text: str, *, as_characters: bool) -> list[int]:
        # The template has written the special tokens already.
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=as_characters)[
            "input_ids"
        ]
        if not as_characters:
            return ids
        word = text.removeprefix("\n")
        if self._tokenizer.convert_tokens_to_ids(word) not in ids:
            return ids
        # Tokens that are not special are matched all the same: in two parts, there is nothing to match.
        cut = len(text) - len(word) + 1
        return [
            *self._encode_text(text[:cut], as_characters=False),
            *self._encode_text(text[cut:], as_characters=False),
        ]

    def _decode_ids(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
