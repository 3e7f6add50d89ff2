"""Log-probabilities under the model that a job starts from: computed once, kept in every checkpoint, never again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from trainer.engine.data.batches import batches_within, collate_rows
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.loop.training_loop import JobLoop
from trainer.engine.preferences.pairs import sequence_log_probs
from trainer.engine.recipe import DataT_co, Recipe
from trainer.engine.scoring.evaluate import evaluation_mode
from trainer.kit.workdir import CHECKPOINT_FOLDER

REFERENCE_NAME = "reference.safetensors"


def answer_log_probs(model: Any, rows: Sequence[TokenizedRow], pad_id: int) -> torch.Tensor:
    """Return each row's summed log-probability of its trained tokens [rows], in nats, without a graph, on the CPU."""
    found = torch.empty(len(rows))
    with evaluation_mode(model):
        for numbers in batches_within([len(row.input_ids) for row in rows], model.device.type):
            batch = collate_rows([rows[number] for number in numbers], pad_id)
            batch = {name: values.to(model.device) for name, values in batch.items()}
            found[torch.tensor(numbers)] = sequence_log_probs(model, batch)[0].float().cpu()
    return found


def win_scores(difference: torch.Tensor) -> torch.Tensor:
    """Return 1 if the difference is above 0, a half if it is 0."""
    return (difference > 0).float() + 0.5 * (difference == 0).float()


class ReferencedRecipe(Recipe[DataT_co]):
    """What methods with a frozen reference share; it stands in front of the class that reads the rows."""

    references: dict[str, torch.Tensor]
    """By "training" and "validation": `log_probs` of the model at the start for all of the split's rows."""

    @abstractmethod
    def log_probs(self, rows: Sequence[Any]) -> torch.Tensor:
        """Return the log-probabilities [2, rows] under the model as it is now, on the CPU."""

    def prepare_model(self) -> None:
        """Load the model and compute the reference's log-probabilities, or take them from the checkpoint."""
        super().prepare_model()
        # Another machine would round differently: taken from the checkpoint, a resumed run has the same losses.
        kept = self.job.workdir / CHECKPOINT_FOLDER / REFERENCE_NAME
        if self.job.spec.resume and kept.is_file():
            self.references = load_file(kept)
            return
        self.references = {"training": self.log_probs(self.data.training.rows)}
        if self.data.validation:
            self.references["validation"] = self.log_probs(self.data.validation.rows)


class ReferenceLoop(JobLoop):
    """A loop whose checkpoints hold the reference's log-probabilities."""

    def write_extras(self, folder: Path) -> None:
        """Keep the reference's log-probabilities with the checkpoint."""
        super().write_extras(folder)
        assert isinstance(self.recipe, ReferencedRecipe)
        save_file(self.recipe.references, folder / REFERENCE_NAME)
