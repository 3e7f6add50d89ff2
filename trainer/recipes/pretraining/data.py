"""The rows of pre-training: documents as one stream of tokens, cut into windows."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.contract.job import FROM_SCRATCH, DataFile
from trainer.contract.methods.pretraining import PretrainingHyperparameters
from trainer.contract.rows import TextRow
from trainer.engine.data.row_pipeline import PROBE_ROWS, RowPipeline
from trainer.engine.data.splits import Split
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.models.load import load_config, load_tokenizer
from trainer.engine.scoring.evaluate import SUBSET_TOKENS
from trainer.kit.errors import TrainerError
from trainer.recipes.pretraining.packing import Stream, Window, Windows, auto_length, chain_documents
from trainer.recipes.pretraining.text import read_documents
from trainer.recipes.pretraining.tokenizers import UNKNOWN, document_ends, tokenize_document

# The longest window that `auto` takes from a base: longer ones cost attention that short texts do not need.
MAX_AUTO_WINDOW = 1024
PROBE_TOKENS = 64


class WindowData(RowPipeline[TextRow, Stream, Window]):
    """Windows of plain text. `documents` are those of the training file."""

    row = TextRow
    needed = "window"
    hyperparameters: PretrainingHyperparameters
    documents: int = 0

    def read_data(self) -> None:
        """Read and tokenize the text and cut it into windows."""
        super().read_data()
        # The texts are in the windows now: kept beside them, a large file would be in memory twice.
        self.source = ()

    def read_file(self, file: DataFile, param: str) -> list[TextRow]:
        """Read a text file as one document, or the documents of a JSONL file."""
        self.check_hash(file, param)
        return read_documents(self.job.workdir / file.path, filename=file.filename, param=param)

    def open_base(self, rows: Sequence[TextRow]) -> None:  # noqa: ARG002 - new models make a tokenizer of them
        """Set `config` and `tokenizer`, without a chat template. Raises TrainerError if the job has no base."""
        if self.job.spec.base.id == FROM_SCRATCH:
            raise TrainerError(
                "invalid_hyperparameters",
                "A model from scratch needs an architecture: give layers, heads, width and context, or name a base.",
                param="method.pretraining.hyperparameters.architecture",
            )
        self.config = load_config(self.job.base)
        self.tokenizer = load_tokenizer(self.job.base)

    def tokenize_rows(self, file: DataFile, rows: Sequence[TextRow], param: str) -> Stream:
        """Return the file's documents as one stream."""
        start, end = document_ends(self.tokenizer)
        stream = chain_documents((tokenize_document(self.tokenizer, row.text) for row in rows), start=start, end=end)
        if param == "training_file":
            self.documents = stream.documents
        else:
            self._warn_about_unknown_characters(stream, file.filename)
        return stream

    def sequence_lengths(self, tokens: Stream) -> list[int]:
        """Return the stream's tokens: before it is cut it is one sequence."""
        return [len(tokens.inputs)]

    def choose_max_length(self, training: Stream) -> int:
        """Return the tokens of a window. Raises TrainerError (`no_trainable_rows`) if the file fills none."""
        asked, tokens = self.hyperparameters.max_length, len(training.inputs)
        new = self.hyperparameters.architecture is not None
        length = auto_length(tokens, self.context if new else min(self.context, MAX_AUTO_WINDOW))
        if asked != "auto":
            length = min(asked, self.context)
            if length < asked:
                self.job.warn(f"max_length {asked} is longer than the model's context: windows have {length} tokens.")
        if tokens < length:
            raise TrainerError(
                "no_trainable_rows",
                f"{self.job.spec.training.filename} has {tokens} tokens, which is shorter than one window of {length}: "
                "give more text, or a smaller max_length.",
                param="training_file",
            )
        return length

    def fit_rows(self, file: DataFile, rows: Sequence[TextRow], tokens: Stream) -> Split[Window]:
        """Cut the stream into windows: no token is lost."""
        windows = tokens.cut_windows(self.max_length, across=self.hyperparameters.attend_across_documents)
        return Split(file, windows, read=len(rows), tokens=windows.tokens, trained_tokens=windows.tokens)

    def subset_rows(self, rows: Sequence[Window]) -> Sequence[Window]:
        """Return windows with about as many tokens as other methods' evaluations on the way, but eight at least."""
        assert isinstance(rows, Windows)
        return rows[:: max(1, rows.tokens // max(SUBSET_TOKENS, 8 * rows.length))]

    def measured_windows(self) -> Windows:
        """Return the held-out windows, or else the training ones."""
        windows = self.measured.rows
        assert isinstance(windows, Windows)
        return windows

    def row_lengths(self) -> list[int]:
        """Return each training window's tokens."""
        windows = self.training.rows
        assert isinstance(windows, Windows)
        return windows.lengths

    def preview_parts(self, row: Window) -> list[tuple[str, TokenizedRow]]:
        """Return what is to be predicted: every token of the window."""
        return [("window", TokenizedRow(row.line, tuple(row.targets.tolist()), (True,) * len(row)))]

    def probe_rows(self) -> list[TokenizedRow]:
        """Return the beginnings of a few windows."""
        ids = [tuple(window.input_ids[:PROBE_TOKENS].tolist()) for window in self.measured.rows[:PROBE_ROWS]]
        return [TokenizedRow(number, row, (True,) * len(row)) for number, row in enumerate(ids, start=1)]

    def _warn_about_unknown_characters(self, stream: Stream, filename: str) -> None:
        if self.hyperparameters.tokenizer != "char":
            return
        missing = int((stream.targets == self.tokenizer.convert_tokens_to_ids(UNKNOWN)).sum())
        if missing:
            self.job.warn(f"{filename}: {missing} character(s) are not in the training file and count as unknown.")
