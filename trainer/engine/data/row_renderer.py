"""One file's rows through the chat template: what it refuses is listed by line, what it cannot say is counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

from trainer.contract.rows import AnyRow, ChatRow, Prompt
from trainer.engine.chat_template.messages import Note
from trainer.engine.chat_template.render import ChatTemplate, RefusedRowError
from trainer.engine.data.splits import format_lines
from trainer.engine.data.tokens import TokenizedRow
from trainer.kit.errors import TrainerError
from trainer.kit.row_files import SHOWN_PROBLEMS

RowT = TypeVar("RowT", bound=AnyRow)
ResultT = TypeVar("ResultT")

_SENTENCES: dict[Note, str] = {
    "system": "have a system message that the chat template does not render there: its text stands in a user's message "
    "or in the first system message",
    "calls": "have tool calls that the chat template does not render: they are written as text, in <tool_call> marks",
    "results": "have tool results that the chat template does not render: they are written as a user's text, in "
    "<tool_response> marks",
    "tools": "have tools that the chat template does not render: they are listed in the system message",
    "names": "have names of speakers that the chat template does not render: they are left out",
    "thoughts": "have reasoning_content that the chat template does not render: it is left out",
    "spaces": "have answers with white space inside that the chat template changes: they are trained as it writes them",
    "merged": "have neighbouring messages of the user that the chat template does not render: they are one message",
}


class RowRenderer:
    """Renders the rows of one file. `skip_share` is the share of rows that may be refused without ending the job."""

    def __init__(self, template: ChatTemplate, *, filename: str, param: str, skip_share: float = 0.0) -> None:
        self.template = template
        self.refused: dict[int, str] = {}
        """Why each refused row was, by its line."""
        self.has_thoughts = False
        """Whether an answer among the rows has thoughts."""
        self._filename = filename
        self._param = param
        self._skip_share = skip_share
        self._noted: dict[Note, set[int]] = defaultdict(set)

    def render_rows(self, rows: Sequence[RowT], tokenize: Callable[[RowT], ResultT]) -> list[ResultT]:
        """Return what `tokenize` makes of each row, without those that it refuses.

        Raises TrainerError (`unsupported_conversation`), naming the lines, if more are refused than the job allows.
        """
        results: list[ResultT] = []
        for row in rows:
            try:
                results.append(tokenize(row))
            except RefusedRowError as error:
                self.refused[row.line] = str(error)
        if len(self.refused) > self._skip_share * len(rows):
            raise TrainerError("unsupported_conversation", self._list_refused(len(rows)), param=self._param)
        return results

    def encode_sequences(self, row: ChatRow) -> list[TokenizedRow]:
        """Return a conversation's sequences, each with some of its trained turns. Raises RefusedRowError."""
        self.has_thoughts |= any(message.reasoning_content for message in row.messages)
        encoded = self.template.encode_row(row)
        self._note(row.line, encoded.notes)
        return [TokenizedRow(row.line, sequence.ids, sequence.trained) for sequence in encoded.sequences]

    def encode_sequence(self, row: ChatRow) -> TokenizedRow:
        """Return a conversation whose trained turns are one continuation. Raises RefusedRowError."""
        sequences = self.encode_sequences(row)
        if len(sequences) > 1:
            raise RefusedRowError(
                "it renders an answer of several turns otherwise once later turns follow: end the answer with its "
                "first turn, or put the earlier turns into the prompt"
            )
        return sequences[0]

    def encode_prompt(self, prompt: Prompt, line: int) -> tuple[int, ...]:
        """Return a prompt's tokens up to the opening of the answer. Raises RefusedRowError."""
        encoded = self.template.encode_prompt(prompt.messages, prompt.tools)
        self._note(line, encoded.notes)
        return encoded.ids

    def list_warnings(self) -> list[str]:
        """Return a sentence for each thing that rows have and the template does not say, with the rows' lines."""
        sentences = [
            f"{self._filename}: {len(lines)} row(s) {_SENTENCES[note]}, at {format_lines(sorted(lines))}."
            for note, lines in sorted(self._noted.items())
        ]
        if self.refused:
            line, reason = next(iter(self.refused.items()))
            sentences.append(
                f"{self._filename}: {len(self.refused)} row(s) are left out, as skip_invalid_rows allows, because the "
                f"chat template cannot render them, at {format_lines(list(self.refused))}. Line {line}: {reason}."
            )
        return sentences

    def _note(self, line: int, notes: frozenset[Note]) -> None:
        for note in notes:
            self._noted[note].add(line)

    def _list_refused(self, rows: int) -> str:
        (line, reason), *others = self.refused.items()
        if not others:
            return (
                f"The base model's chat template cannot render the conversation in line {line}: {reason}. Change the "
                "row, or set skip_invalid_rows to train without it."
            )
        reasons = "; ".join(f"line {line}: {reason}" for line, reason in [*self.refused.items()][:SHOWN_PROBLEMS])
        hidden = len(self.refused) - SHOWN_PROBLEMS
        return (
            f"The base model's chat template cannot render {len(self.refused)} of {rows} conversations in "
            f"{self._filename}: {reasons}{f'; and {hidden} more' if hidden > 0 else ''}. Change these rows, or set "
            f"skip_invalid_rows to {len(self.refused) / rows:.2g} or more to train without them."
        )


def tokenize_rows(
    template: ChatTemplate, rows: Sequence[ChatRow], *, filename: str = "the file", param: str = "training_file"
) -> list[TokenizedRow]:
    """Render and tokenize each row. Raises TrainerError (`unsupported_conversation`), naming the lines."""
    renderer = RowRenderer(template, filename=filename, param=param)
    return [row for sequences in renderer.render_rows(rows, renderer.encode_sequences) for row in sequences]
