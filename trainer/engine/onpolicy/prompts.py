"""The rows of a job on the policy's own answers: prompts as token ids, up to the opening of the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from trainer.contract.job import DataFile
from trainer.contract.methods.onpolicy import OnPolicyHyperparameters
from trainer.contract.rows import ChatRow, ItemRow, Message, PromptRow
from trainer.engine.data.row_pipeline import PROBE_ROWS, RowPipeline
from trainer.engine.data.row_renderer import RowRenderer
from trainer.engine.data.splits import Split, format_lines
from trainer.engine.data.tokens import TokenizedRow
from trainer.kit.errors import TrainerError
from trainer.kit.job_context import JobContext

SUBSET_PROMPTS = 64


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt up to the opening of the answer. `line` is the row's line in its file."""

    line: int
    input_ids: tuple[int, ...]
    reference: str | None = None
    item: Mapping[str, Any] | None = None
    """The whole row: a grader may ask for any of its keys."""
    tools: tuple[dict[str, Any], ...] | None = None
    """What the answer may call."""


def tokenize_prompts(renderer: RowRenderer, rows: Sequence[PromptRow]) -> list[TokenizedPrompt]:
    """Render and tokenize each prompt. Raises TrainerError (`unsupported_conversation`), naming the lines."""
    return renderer.render_rows(rows, lambda row: _tokenize_prompt(renderer, row))


def as_conversation(row: PromptRow) -> ChatRow:
    """Return the prompt with its reference as the answer, empty if it has none: a question for the report."""
    answer = Message(role="assistant", content=row.reference or "")
    return ChatRow(messages=(*row.input.messages, answer), tools=row.input.tools, line=row.line)


class PromptData(RowPipeline[PromptRow, list[TokenizedPrompt], TokenizedPrompt]):
    """Prompts, each with room for the longest answer; they are dropped if they are too long, never cut."""

    row = PromptRow

    def __init__(self, job: JobContext) -> None:
        super().__init__(job)
        self.longest_answer = cast(OnPolicyHyperparameters, self.hyperparameters).max_new_tokens
        self.needed = f"prompt that leaves room for {self.longest_answer} new tokens"

    def check_rows(self, file: DataFile, rows: Sequence[PromptRow], param: str) -> None:
        """Check that rows have what their answers are judged by. Raises TrainerError (`invalid_training_file`, …)."""

    def tokenize_rows(self, file: DataFile, rows: Sequence[PromptRow], param: str) -> list[TokenizedPrompt]:
        """Render and tokenize the prompts. Raises TrainerError (`prompt_too_long`, `missing_reference`, …)."""
        self.check_rows(file, rows, param)
        prompts = tokenize_prompts(self.open_renderer(file, param), rows)
        over = [prompt.line for prompt in prompts if len(prompt.input_ids) > self.context - self.longest_answer]
        if over:
            raise TrainerError(
                "prompt_too_long",
                f"{file.filename}: with max_new_tokens {self.longest_answer} the model's context of {self.context} "
                f"tokens is too short for the prompt(s) at {format_lines(over)}. Shorten them or lower "
                "max_new_tokens.",
                param=param,
            )
        return prompts

    def sequence_lengths(self, tokens: list[TokenizedPrompt]) -> list[int]:
        """Return each prompt's tokens with the longest answer."""
        return [len(prompt.input_ids) + self.longest_answer for prompt in tokens]

    def fit_rows(
        self, file: DataFile, rows: Sequence[PromptRow], tokens: list[TokenizedPrompt]
    ) -> Split[TokenizedPrompt]:
        """Drop prompts that leave no room for the longest answer."""
        room = self.max_length - self.longest_answer
        kept = [prompt for prompt in tokens if len(prompt.input_ids) <= room]
        return Split(
            file=file,
            rows=kept,
            read=len(rows),
            tokens=sum(len(prompt.input_ids) for prompt in kept),
            trained_tokens=0,
            dropped=tuple(prompt.line for prompt in tokens if len(prompt.input_ids) > room),
        )

    def subset_rows(self, rows: Sequence[TokenizedPrompt]) -> Sequence[TokenizedPrompt]:
        """Return up to 64 prompts: each costs an answer."""
        return rows[:: max(1, math.ceil(len(rows) / SUBSET_PROMPTS))]

    def row_lengths(self) -> list[int]:
        """Return each training prompt's tokens with the longest answer."""
        return self.sequence_lengths(list(self.training.rows))

    def sample_rows(self) -> Sequence[ChatRow]:
        """Return the prompts of the rows that are measured."""
        lines = {prompt.line for prompt in self.measured.rows}
        return [as_conversation(row) for row in self.source if row.line in lines]

    def preview_parts(self, row: TokenizedPrompt) -> list[tuple[str, TokenizedRow]]:
        """Return the prompt: what is trained on is written by the model later."""
        return [("prompt", _without_answer(row))]

    def probe_rows(self) -> Sequence[TokenizedRow]:
        """Return a few prompts."""
        return [_without_answer(prompt) for prompt in self.measured.rows[:PROBE_ROWS]]


def _without_answer(prompt: TokenizedPrompt) -> TokenizedRow:
    return TokenizedRow(prompt.line, prompt.input_ids, (False,) * len(prompt.input_ids))


def _tokenize_prompt(renderer: RowRenderer, row: PromptRow) -> TokenizedPrompt:
    ids = renderer.encode_prompt(row.input, row.line)
    item = row.item if isinstance(row, ItemRow) else None
    return TokenizedPrompt(row.line, ids, row.reference, item, row.input.tools)
