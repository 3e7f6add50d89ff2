"""What pre-training does in each phase: here with an adapter on a base, in `full` with all weights."""

from __future__ import annotations

from typing import Any

from trainer.contract.methods.base import Resolved
from trainer.contract.methods.pretraining import PretrainingHyperparameters
from trainer.engine.recipe import Recipe
from trainer.engine.scoring.samples import SampleAnswer
from trainer.kit.auto import with_steps
from trainer.kit.errors import TrainerError
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure
from trainer.recipes.pretraining.continuations import choose_openings, continue_openings
from trainer.recipes.pretraining.data import WindowData
from trainer.recipes.pretraining.loop import PretrainingLoop
from trainer.recipes.pretraining.scoring import keeps_documents_apart, score_windows


class PretrainingRecipe(Recipe[WindowData]):
    """Continues to train a base on plain text, by an adapter."""

    pipeline = WindowData
    hyperparameters: PretrainingHyperparameters

    def prepare_model(self) -> None:
        """Load base and adapter. Raises TrainerError if the base cannot keep documents apart."""
        super().prepare_model()
        self.check_separation()

    def check_separation(self) -> None:
        """Raise TrainerError if documents are to be kept apart and the model does not."""
        apart = self.data.documents > 1 and not self.hyperparameters.attend_across_documents
        if apart and not keeps_documents_apart(self.model):
            raise TrainerError(
                "unsupported_base_model",
                "The base's attention cannot keep documents of one window apart: set attend_across_documents to true.",
                param="method.pretraining.hyperparameters.attend_across_documents",
            )

    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Return loss and token accuracy over all tokens of the held-out (or training) windows, or of a part."""
        return score_windows(self.model, self.data.rows_to_measure(full=full), self.data.pad_id)

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
            self.data.tokenizer,
            self.data.measured_windows(),
            count=self.job.spec.sample_count,
            source=self.data.measured_on,
        )

    def answer_questions(self) -> list[SampleAnswer]:
        """Continue them with the model as it is now."""
        texts = continue_openings(self.model, self.data.tokenizer, self.questions, self.data.context)
        return [SampleAnswer(text) for text in texts]
