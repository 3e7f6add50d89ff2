"""Tokens as text while they come: whole characters only, and nothing that may turn out to be a stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase


class TextStream:
    """Turns an answer's tokens into text that can be shown at once.

    Characters of several tokens wait until they are whole; text that may be the beginning of one of `stops` waits
    until it is not. After a stop was found, `stopped` is true and nothing more comes; the stop itself is left out.
    Special tokens are left out, but for `marks`, by id: each comes as the character that stands for it.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], marks: Mapping[int, str] | None = None
    ) -> None:
        self.stopped = False
        self._backend: Tokenizer = tokenizer.backend_tokenizer  # pyright: ignore[reportAttributeAccessIssue]
        self._marks = marks or {}
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stops = tuple(stop for stop in stops if stop)
        self._tokens: list[int] = []
        self._decoded = 0
        self._held = ""

    def add_token(self, token: int) -> str:
        """Take a token; return the text that can be shown now."""
        if token in self._marks:
            return self._release_text(self._end_decoding() + self._marks[token])
        self._tokens.append(token)
        text = self._stream.step(self._backend, token) or ""
        self._decoded += len(text)
        return self._release_text(text)

    def finish_text(self) -> str:
        """Return what is left at the end of the answer."""
        text = self._release_text(self._end_decoding())
        held_text, self._held = self._held, ""
        return text + ("" if self.stopped else held_text)

    def _end_decoding(self) -> str:
        """Return what is left of the tokens so far, and decode the next ones from their own beginning."""
        rest = self._backend.decode(self._tokens, skip_special_tokens=True)[self._decoded :] if self._tokens else ""
        self._stream, self._tokens, self._decoded = DecodeStream(skip_special_tokens=True), [], 0
        return rest

    def _release_text(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        stop_places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if stop_places:
            self.stopped = True
            safe_text, self._held = self._held[: min(stop_places)], ""
            return safe_text
        keep = max((_overlap_length(self._held, stop) for stop in self._stops), default=0)
        safe_length = len(self._held) - keep
        safe_text, self._held = self._held[:safe_length], self._held[safe_length:]
        return safe_text


def _overlap_length(text: str, stop: str) -> int:
    """Return how many of the last characters of `text` are the first of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
