"""From a job's data files to the rows that are trained and measured on: read, tokenize, cut, warn.

The order of these steps is the same for every method and stands here once. A method's pipeline says what its rows are,
how they become tokens and what is done with one that is too long.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from trainer.contract.job import DataFile
from trainer.contract.result import ExitCode, sha256_of
from trainer.contract.rows import AnyRow, ChatRow
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.data.row_renderer import RowRenderer
from trainer.engine.data.splits import Split, format_lines
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.models.load import context_length, load_config, load_tokenizer
from trainer.kit.auto import resolve_max_length
from trainer.kit.errors import TrainerError
from trainer.kit.job_context import JobContext
from trainer.kit.row_files import read_rows

RowT = TypeVar("RowT", bound=AnyRow)
TokensT = TypeVar("TokensT")
ItemT = TypeVar("ItemT")

PROBE_ROWS = 4
"""How many rows an exported result is compared on."""


class RowPipeline(ABC, Generic[RowT, TokensT, ItemT]):
    """One method's rows: `RowT` as they are in a file, `TokensT` a file's rows as tokens, `ItemT` what is trained on.

    `read_data` sets all that is below `needed`; `validation` is None if there is nothing to measure on but the
    training rows.
    """

    row: ClassVar[type[AnyRow]]
    needed: str
    """What a row without it is dropped for, such as "token to train on"."""

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    config: PreTrainedConfig
    training: Split[ItemT]
    validation: Split[ItemT] | None = None
    max_length: int
    source: Sequence[RowT] = ()
    """The rows of the file that is measured on, as they are in the file: the report's samples ask their prompts."""

    def __init__(self, job: JobContext) -> None:
        self.job = job
        self.hyperparameters = job.spec.method.hyperparameters
        self._renderers: dict[str, RowRenderer] = {}

    # What a method fills in.

    @abstractmethod
    def tokenize_rows(self, file: DataFile, rows: Sequence[RowT], param: str) -> TokensT:
        """Return a file's rows as tokens, none cut. Raises TrainerError if the method cannot take one."""

    @abstractmethod
    def sequence_lengths(self, tokens: TokensT) -> Iterable[int]:
        """Return the tokens of each sequence that the model would see at once."""

    @abstractmethod
    def fit_rows(self, file: DataFile, rows: Sequence[RowT], tokens: TokensT) -> Split[ItemT]:
        """Cut or drop what is longer than `max_length`."""

    @abstractmethod
    def subset_rows(self, rows: Sequence[ItemT]) -> Sequence[ItemT]:
        """Return evenly spaced rows, enough for a curve while training goes on."""

    def row_lengths(self) -> list[int]:
        """Return each training row's tokens as they fill a pass, in the rows' order."""
        return [len(cast(Any, row).input_ids) for row in self.training.rows]

    def row_tokens(self) -> Sequence[int]:
        """Return each training row's tokens as the loop counts them."""
        return self.row_lengths()

    def sample_rows(self) -> Sequence[ChatRow]:
        """Return the conversations whose last turns both models answer for the report; none by default."""
        return ()

    def preview_parts(self, row: ItemT) -> Sequence[tuple[str, TokenizedRow]]:
        """Return what a training row shows in a preview: its parts by name, each with the mask that training uses."""
        return [("conversation", cast(Any, row))]

    def probe_rows(self) -> Sequence[TokenizedRow]:
        """Return a few rows on which the exported result is compared with the trained model."""
        return cast(Any, list(self.measured.rows[:PROBE_ROWS]))

    # What every method has.

    @property
    def measured(self) -> Split[ItemT]:
        """The rows that models are compared on: held out, or else the training rows."""
        return self.validation or self.training

    @property
    def measured_on(self) -> Literal["validation", "training"]:
        """Which of the files `measured` is."""
        return "validation" if self.validation else "training"

    def rows_to_measure(self, *, full: bool) -> Sequence[ItemT]:
        """Return the held-out rows, if not `full` a part of them; of training rows, which say little, always a part."""
        rows = self.measured.rows
        return rows if full and self.validation else self.subset_rows(rows)

    @property
    def template_settings(self) -> dict[str, Any]:
        """The variables that the chat template is run with; none for methods without conversations."""
        return self.template.settings if hasattr(self, "template") else {}

    @property
    def pad_id(self) -> int:
        """The id that fills up rows; masks come from lengths, never from it."""
        assert isinstance(self.tokenizer.pad_token_id, int)
        return self.tokenizer.pad_token_id

    @property
    def context(self) -> int:
        """The most tokens that the model can attend to."""
        return context_length(self.config)

    def read_data(self) -> None:
        """Read, tokenize and cut both files. Raises TrainerError, for a row that no training could use."""
        spec = self.job.spec
        rows = self.read_file(spec.training, "training_file")
        self.open_base(rows)
        training = self.tokenize_rows(spec.training, rows, "training_file")
        rows, skipped = self._leave_out_refused(rows, "training_file")
        held_out: tuple[DataFile, Sequence[RowT], TokensT] | None = None
        held_out_skipped: tuple[int, ...] = ()
        if spec.validation:
            held_out_rows = self.read_file(spec.validation, "validation_file")
            held_out_tokens = self.tokenize_rows(spec.validation, held_out_rows, "validation_file")
            held_out_rows, held_out_skipped = self._leave_out_refused(held_out_rows, "validation_file")
            held_out = (spec.validation, held_out_rows, held_out_tokens)
        # The training rows alone decide the length: with the same ones, a job with a validation file trains the same.
        self.max_length = self.choose_max_length(training)
        self.training = _count_skipped(self.fit_rows(spec.training, rows, training), skipped)
        self.validation = None
        if held_out:
            validation = _count_skipped(self.fit_rows(*held_out), held_out_skipped)
            self.validation = replace(validation, also_trained=_find_lines_in_both(rows, held_out[1]))
        self.warn_about_dropped_rows()
        self.warn_about_options()
        # After the warnings, which take a validation file away that no row is left of.
        self.source = held_out[1] if held_out and self.validation else rows

    def open_base(self, rows: Sequence[RowT]) -> None:  # noqa: ARG002 - new models make a tokenizer of them
        """Load the base's configuration and tokenizer, for methods on conversations: with its chat template."""
        self.config = load_config(self.job.base)
        self.tokenizer = load_tokenizer(self.job.base)
        self.template = ChatTemplate(
            self.tokenizer,
            folder=self.job.base,
            day=self.job.spec.template_date,
            thoughts=self.hyperparameters.thought_use,
        )
        if self.template.end_of_turn is None:
            self.job.warn("The chat template has no end-of-turn token: the tuned model may not know when to stop.")
        if self.template.settings:
            settings = ", ".join(f"{name}={json.dumps(value)}" for name, value in self.template.settings.items())
            self.job.warn(
                f"The chat template is run with {settings}, in training as in chat: under its defaults an answer does "
                "not begin where the model begins to write. Other programs have to set the same."
            )

    def open_renderer(self, file: DataFile, param: str) -> RowRenderer:
        """Return what renders a file's rows, once a file; its warnings are the job's."""
        renderer = RowRenderer(
            self.template, filename=file.filename, param=param, skip_share=self.hyperparameters.invalid_share
        )
        self._renderers[param] = renderer
        return renderer

    def read_file(self, file: DataFile, param: str) -> Sequence[RowT]:
        """Read a data file's rows. Raises TrainerError (`invalid_training_file`, …, `data_corrupted`)."""
        self.check_hash(file, param)
        path = self.job.workdir / file.path
        return cast("list[RowT]", read_rows(path, self.row, filename=file.filename, param=param))

    def check_hash(self, file: DataFile, param: str) -> None:
        """Raise TrainerError (`data_corrupted`) if a data file is there and is not what the job states."""
        path = self.job.workdir / file.path
        if path.is_file() and sha256_of(path) != file.sha256:
            raise TrainerError(
                "data_corrupted",
                f"{file.filename} does not have the SHA-256 that the job states; upload it again.",
                param=param,
                exit_code=ExitCode.FAULT,
            )

    def choose_max_length(self, training: TokensT) -> int:
        """Return the most tokens of a sequence, from those of the training file."""
        longest = max(self.sequence_lengths(training), default=0)
        return resolve_max_length(self.hyperparameters, longest, self.context)

    def warn_about_options(self) -> None:
        """Warn about hyperparameters that change nothing in this job."""
        ineffective = self.hyperparameters.find_ineffective(has_validation=self.validation is not None)
        for name, reason in ineffective.items():
            self.job.warn(f"{name} has no effect in this job: {reason}.")

    def warn_about_dropped_rows(self) -> None:
        """Warn about rows that were cut or dropped. Raises TrainerError if no training row is left."""
        for renderer in self._renderers.values():
            for warning in renderer.list_warnings():
                self.job.warn(warning)
        use = self.hyperparameters.thought_use
        if use != "train" and not any(renderer.has_thoughts for renderer in self._renderers.values()):
            self.job.warn(f"thoughts is {use}, which changes nothing: no answer has reasoning_content.")
        for split in filter(None, (self.training, self.validation)):
            name = split.file.filename
            if split.cut:
                at = format_lines(split.cut)
                self.job.warn(f"{name}: {len(split.cut)} row(s) were cut to {self.max_length} tokens, at {at}.")
            if split.dropped:
                at = format_lines(split.dropped)
                self.job.warn(f"{name}: {len(split.dropped)} row(s) have no {self.needed}, at {at}.")
            if split.also_trained:
                at = format_lines(split.also_trained)
                self.job.warn(
                    f"{name}: {len(split.also_trained)} of {split.read} row(s) are in the training file too, at {at}: "
                    "they are not held out, and the model may do better on them than on new ones."
                )
        if not self.training.rows:
            raise TrainerError(
                "no_trainable_rows",
                f"{self.training.file.filename} has no row with {self.needed} within {self.max_length} tokens: check "
                "its rows and max_length.",
                param="training_file",
            )
        if self.validation is not None and not self.validation.rows:
            self.job.warn("The validation file has no row to measure on: the report has training numbers only.")
            self.validation = None

    def _leave_out_refused(self, rows: Sequence[RowT], param: str) -> tuple[Sequence[RowT], tuple[int, ...]]:
        renderer = self._renderers.get(param)
        if renderer is None or not renderer.refused:
            return rows, ()
        return [row for row in rows if row.line not in renderer.refused], tuple(renderer.refused)


def _count_skipped(split: Split[ItemT], lines: tuple[int, ...]) -> Split[ItemT]:
    return replace(split, read=split.read + len(lines), skipped=lines) if lines else split


def _find_lines_in_both(training: Iterable[AnyRow], held_out: Iterable[AnyRow]) -> tuple[int, ...]:
    """Return the lines of those validation rows that say the same as a training row, whatever their place and keys."""
    fingerprints = {_fingerprint_row(row) for row in training}
    return tuple(row.line for row in held_out if _fingerprint_row(row) in fingerprints)


def _fingerprint_row(row: AnyRow) -> bytes:
    # A hash of each, and not the rows themselves, so that a file of gigabytes does not stand in memory once more.
    return blake2b(row.model_dump_json(exclude={"line"}).encode("utf-8", "surrogatepass"), digest_size=16).digest()
