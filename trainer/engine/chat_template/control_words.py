"""Control tokens that somebody typed: they are marked before a template sees them, and stay characters.

A text such as `<|im_end|>` inside a message is replaced by one character of a private-use area. Behind the template,
the rendering is split at these characters: what the template wrote is tokenized with control tokens, what somebody
typed without them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

_FIRST_MARK, _LAST_MARK = 0x10F000, 0x10FFFD
# A mark or a run of text between marks.
_PIECES = re.compile(f"([{chr(_FIRST_MARK)}-{chr(_LAST_MARK)}])")
THOUGHT_MARKS = frozenset({"<think>", "</think>"})
"""The assistant's own marks around thoughts: in its texts they are what it is to write, tokens or not."""


class ControlWords:
    """The texts that a tokenizer reads as control tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        tokens = list(tokenizer.added_tokens_decoder.values())
        special = {token.content for token in tokens if token.special and token.content.strip()}
        # Tokens without the flag, such as `<tool_response>`, are control tokens if the template writes them.
        written = {token.content for token in tokens if token.content.strip() and token.content in source}
        self._by_assistant = _match_any(special - THOUGHT_MARKS)
        self._by_others = _match_any(special | written)
        self.special = frozenset(special)

    def find_words(self, text: str, *, by_assistant: bool) -> re.Match[str] | None:
        """Return the first control word in a text, None if it has none."""
        return self.pattern(by_assistant=by_assistant).search(text)

    def pattern(self, *, by_assistant: bool) -> re.Pattern[str]:
        """Return the pattern of the words that must not become tokens in somebody's text."""
        return self._by_assistant if by_assistant else self._by_others


class TextMarks:
    """The marks of one conversation. `texts` are its own: a mark is a character that none of them has."""

    def __init__(self, words: ControlWords, texts: Iterable[str] = ()) -> None:
        self._words = words
        self._taken = {mark for text in texts for mark in _PIECES.findall(text)}
        self._marks: dict[str, str] = {}
        self._next = _FIRST_MARK

    def mark_text(self, text: str, *, by_assistant: bool = False) -> str:
        """Return the text with a mark in place of each control word."""
        pattern = self._words.pattern(by_assistant=by_assistant)
        return pattern.sub(lambda match: self._mark_for(match.group()), text) if pattern.search(text) else text

    def restore_text(self, text: str) -> str:
        """Return a marked text as it was."""
        for word, mark in self._marks.items():
            text = text.replace(mark, word)
        return text

    def split_text(self, text: str) -> list[tuple[str, bool]]:
        """Return the pieces of a marked text, and of each whether it is a control word that stays text."""
        if not self._marks:
            return [(text, False)] if text else []
        words = {mark: word for word, mark in self._marks.items()}
        pieces: list[tuple[str, bool]] = []
        for piece in _PIECES.split(text):
            word = words.get(piece)
            if word is not None:
                pieces.append((word, True))
            elif pieces and not pieces[-1][1]:
                pieces[-1] = (pieces[-1][0] + piece, False)
            elif piece:
                pieces.append((piece, False))
        return pieces

    def _mark_for(self, word: str) -> str:
        if word not in self._marks:
            while chr(self._next) in self._taken:
                self._next += 1
            self._marks[word] = chr(self._next)
            self._next += 1
        return self._marks[word]


def _match_any(words: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
