"""Scoring conversations with an exported reward model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from trainer.contract.job import DEFAULT_TEMPLATE_DATE
from trainer.contract.rows import ChatRow
from trainer.engine.chat_template.render import ChatTemplate, RefusedRowError
from trainer.engine.data.row_renderer import RowRenderer
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.models.dtype import choose_dtype
from trainer.engine.models.load import context_length, load_config, load_tokenizer
from trainer.engine.reward.last_turn import last_turn
from trainer.engine.reward.model import load_reward_model, score_sequences


class ResponseScorer:
    """A reward model, loaded for scoring; the adapter's folder brings tokenizer and chat template."""

    def __init__(self, base: Path, adapter: Path, dtype: Literal["auto", "float32", "bfloat16"] = "auto") -> None:
        config = load_config(base)
        tokenizer = load_tokenizer(adapter)
        assert isinstance(tokenizer.pad_token_id, int)
        self._pad_id = tokenizer.pad_token_id
        # The default day, which is the same every day: scores do not depend on when they are asked for.
        template = ChatTemplate(tokenizer, folder=base, day=DEFAULT_TEMPLATE_DATE)
        self._renderer = RowRenderer(template, filename="the conversations", param="input")
        self._context = context_length(config)
        self._model = load_reward_model(base, adapter, choose_dtype(dtype, config).dtype, self._pad_id)

    def score_conversations(self, rows: Sequence[Sequence[ChatRow]]) -> list[list[float] | str]:
        """Return each row's scores, one a conversation, or why it has none."""
        tokenized = [self._tokenize_conversations(row) for row in rows]
        flat = [sequence for found in tokenized if not isinstance(found, str) for sequence in found]
        scores = iter(score_sequences(self._model, flat, self._pad_id))
        return [found if isinstance(found, str) else [next(scores) for _ in found] for found in tokenized]

    def _tokenize_conversations(self, row: Sequence[ChatRow]) -> list[TokenizedRow] | str:
        try:
            found = [self._renderer.encode_sequence(last_turn(conversation)) for conversation in row]
        except RefusedRowError as error:
            return f"The base model's chat template cannot render the conversation: {error}."
        longest = max(len(sequence.input_ids) for sequence in found)
        if longest > self._context:
            return f"{longest} tokens are more than the model's context of {self._context}"
        return found
