"""Answers of token ids, whole: what they say, think and call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from transformers import PreTrainedTokenizerBase

from trainer.engine.answer_format.answer_form import AnswerForm
from trainer.engine.answer_format.parts import AnswerContent, AnswerParser, OfferedTools
from trainer.engine.answer_format.token_marks import TokenMarks

_PROMPT_END = 64
"""Tokens at a prompt's end that may open the answer."""
_NO_TOOLS = OfferedTools()


class AnswerReader:
    """Reads answers in the form of this tokenizer's chat template. Special tokens that are no marks are left out."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.form = AnswerForm.detect(tokenizer)
        self.token_marks = TokenMarks.from_tokenizer(tokenizer, self.form.marks)
        self._tokenizer = tokenizer
        self._decode = partial(tokenizer.decode, clean_up_tokenization_spaces=False)

    def open_parser(self, prompt_ids: Sequence[int], tools: OfferedTools = _NO_TOOLS) -> AnswerParser:
        """Return a parser of the answer to a prompt."""
        return self.form.open_parser(self._decode_end(prompt_ids), tools, self.token_marks)

    def read_answer(
        self, prompt_ids: Sequence[int], ids: Sequence[int], tools: OfferedTools = _NO_TOOLS
    ) -> AnswerContent:
        """Read a whole answer. Calls of functions that are not among `tools` are text."""
        parser = self.open_parser(prompt_ids, tools)
        parts = parser.add_text("".join(self._decode_pieces(ids)))
        return AnswerContent.from_parts([*parts, *parser.finish_text()])

    def read_text(self, prompt_ids: Sequence[int], text: str) -> AnswerContent:
        """Read a whole answer that is text, its special tokens as they are written. Calls are text."""
        return self.form.read_text(text, _NO_TOOLS, prompt_end=self._decode_end(prompt_ids))

    def _decode_end(self, ids: Sequence[int]) -> str:
        return str(self._decode(list(ids[-_PROMPT_END:]), skip_special_tokens=False))

    def _decode_pieces(self, ids: Sequence[int]) -> Iterator[str]:
        marks, begin = self.token_marks.by_id, 0
        for place in [*(place for place, token in enumerate(ids) if token in marks), len(ids)]:
            if place > begin:
                yield str(self._decode(list(ids[begin:place]), skip_special_tokens=True))
            if place < len(ids):
                yield marks[ids[place]]
            begin = place + 1
