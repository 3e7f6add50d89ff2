"""What pre-training does in each phase: here with an adapter on a base, in `full` with all weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from trainer.contract.job import FROM_SCRATCH, DataFile
from trainer.contract.methods.base import Resolved
from trainer.contract.methods.pretraining import PretrainingHyperparameters
from trainer.contract.rows import TextRow
from trainer.engine.data.splits import Split
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.models.load import context_length, load_config, load_tokenizer
from trainer.engine.recipe import JobContext, Recipe
from trainer.kit.auto import with_steps
from trainer.kit.errors import TrainerError
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure
from trainer.recipes.pretraining.continuations import choose_openings, continue_openings
from trainer.recipes.pretraining.loop import PretrainingLoop
from trainer.recipes.pretraining.packing import Stream, Window, Windows, auto_length, chain_documents
from trainer.recipes.pretraining.scoring import keeps_documents_apart, score_windows, subset_windows
from trainer.recipes.pretraining.text import read_documents
from trainer.recipes.pretraining.tokenizers import UNKNOWN, document_ends, tokenize_document

# The longest window that `auto` takes from a base: longer ones cost attention that short texts do not need.
MAX_AUTO_WINDOW = 1024
PROBE_TOKENS = 64


class PretrainingRecipe(Recipe):
    """Continues to train a base on plain text, by an adapter."""

    hyperparameters: PretrainingHyperparameters
    training: Split[Any]

    def __init__(self, job: JobContext) -> None:
        super().__init__(job)
        self.documents = 0

    def read_data(self) -> None:
        """Read and tokenize the text and cut it into windows."""
        spec = self.job.spec
        texts = self._read_texts(spec.training, "training_file")
        self.open_model(texts)
        stream = self._make_stream(texts)
        self.documents = stream.documents
        self.max_length = self._window_length(len(stream.inputs))
        self.training = self._make_split(spec.training, stream)
        if spec.validation:
            held_out = self._make_stream(self._read_texts(spec.validation, "validation_file"))
            self.validation = self._make_split(spec.validation, held_out)
            self._warn_about_unknown_characters(held_out, spec.validation.filename)

    def open_model(self, texts: Sequence[TextRow]) -> None:  # noqa: ARG002 - new models make a tokenizer of them
        """Set `config` and `tokenizer`. Raises TrainerError if the job has no base."""
        if self.job.spec.base.id == FROM_SCRATCH:
            raise TrainerError(
                "invalid_hyperparameters",
                "A model from scratch needs an architecture: give layers, heads, width and context, or name a base.",
                param="method.pretraining.hyperparameters.architecture",
            )
        self.config = load_config(self.job.base)
        self.tokenizer = load_tokenizer(self.job.base)

    def prepare_model(self) -> None:
        """Load base and adapter. Raises TrainerError if the base cannot keep documents apart."""
        super().prepare_model()
        self.check_separation()

    def check_separation(self) -> None:
        """Raise TrainerError if documents are to be kept apart and the model does not."""
        apart = self.documents > 1 and not self.hyperparameters.attend_across_documents
        if apart and not keeps_documents_apart(self.model):
            raise TrainerError(
                "unsupported_base_model",
                "The base's attention cannot keep documents of one window apart: set attend_across_documents to true.",
                param="method.pretraining.hyperparameters.attend_across_documents",
            )

    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Return loss and token accuracy over all tokens of the held-out (or training) windows, or of a part."""
        windows: Windows = cast(Windows, self.measured.rows)
        whole = full and self.validation is not None
        return score_windows(self.model, windows if whole else subset_windows(windows), self.pad_id)

    def preview_parts(self, row: Window) -> list[tuple[str, TokenizedRow]]:
        """Return what is to be predicted: every token of the window."""
        return [("window", TokenizedRow(row.line, tuple(row.targets.tolist()), (True,) * len(row)))]

    def row_lengths(self) -> list[int]:
        """Return each training window's tokens."""
        return cast(Windows, self.training.rows).lengths

    def resolve_hyperparameters(self) -> Resolved:
        """Turn every `auto` into a number; `max_steps` decides if it is given."""
        asked, resolved = self.hyperparameters, super().resolve_hyperparameters()
        if asked.learning_rate != "auto":
            resolved = resolved.model_copy(update={"learning_rate": asked.learning_rate})
        settings = {**resolved.settings, "learning_rate": resolved.learning_rate, **self.own_settings()}
        resolved = resolved.model_copy(update={"settings": settings})
        return resolved if asked.max_steps is None else with_steps(resolved, asked, asked.max_steps)

    def own_settings(self) -> dict[str, Any]:
        """Return what this method's own `auto` came to."""
        return {"weights": "lora"}

    def make_loop(self, progress: TrainingProgress) -> PretrainingLoop:
        """Return the training loop."""
        asked = self.hyperparameters
        return PretrainingLoop(
            self,
            progress,
            floor=asked.min_learning_rate_ratio,
            adam_beta1=asked.beta1,
            adam_beta2=asked.beta2,
            **self.own_arguments(),
        )

    def own_arguments(self) -> dict[str, Any]:
        """Return what the loop's configuration has besides the common."""
        return {}

    def choose_questions(self) -> None:
        """Choose the beginnings that both models continue for the report."""
        self.questions = choose_openings(
            self.tokenizer,
            cast(Windows, self.measured.rows),
            count=self.job.spec.sample_count,
            source="validation" if self.validation else "training",
        )

    def answer_questions(self) -> list[str]:
        """Continue them with the model as it is now."""
        return continue_openings(self.model, self.tokenizer, self.questions, context_length(self.config))

    def probe_rows(self) -> list[TokenizedRow]:
        """Return the beginnings of a few windows to compare logits on."""
        ids = [tuple(window.input_ids[:PROBE_TOKENS].tolist()) for window in self.measured.rows[:4]]
        return [TokenizedRow(number, row, (True,) * len(row)) for number, row in enumerate(ids, start=1)]

    def _read_texts(self, file: DataFile, param: str) -> list[TextRow]:
        self.check_hash(file, param)
        return read_documents(self.job.workdir / file.path, filename=file.filename, param=param)

    def _make_stream(self, texts: Sequence[TextRow]) -> Stream:
        start, end = document_ends(self.tokenizer)
        return chain_documents((tokenize_document(self.tokenizer, row.text) for row in texts), start=start, end=end)

    def _make_split(self, file: DataFile, stream: Stream) -> Split[Any]:
        windows = stream.cut_windows(self.max_length, across=self.hyperparameters.attend_across_documents)
        return Split(file, windows, read=stream.documents, tokens=windows.tokens, trained_tokens=windows.tokens)

    def _window_length(self, tokens: int) -> int:
        """Return the tokens of a window. Raises TrainerError (`no_trainable_rows`) if the file fills none."""
        asked, context = self.hyperparameters.max_length, context_length(self.config)
        new = self.hyperparameters.architecture is not None
        length = auto_length(tokens, context if new else min(context, MAX_AUTO_WINDOW))
        if asked != "auto":
            length = min(asked, context)
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

    def _warn_about_unknown_characters(self, stream: Stream, filename: str) -> None:
        if self.hyperparameters.tokenizer != "char":
            return
        missing = int((stream.targets == self.tokenizer.convert_tokens_to_ids(UNKNOWN)).sum())
        if missing:
            self.job.warn(f"{filename}: {missing} character(s) are not in the training file and count as unknown.")
