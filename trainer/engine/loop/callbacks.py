"""The loop's turning points: the clock of a step, a request to stop, and checkpoints that are whole when announced."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from trainer.contract.events import CheckpointEvent
from trainer.engine.loop.checkpoints import finish_checkpoint
from trainer.engine.recipe import Recipe
from trainer.kit.progress import TrainingProgress


class StepLoop(Protocol):
    """The training loop as its callback sees it."""

    recipe: Recipe
    progress: TrainingProgress

    def begin_step(self) -> None:
        """Start the clock and the sums of an optimizer step."""
        ...

    def write_extras(self, folder: Path) -> None:
        """Write what a resumed run needs beyond the library's own files."""
        ...


class FlowCallback(TrainerCallback):
    """Connects the training loop with the run around it."""

    def __init__(self, trainer: StepLoop) -> None:
        self._trainer = trainer

    def on_step_begin(self, *_args: Any, **_kwargs: Any) -> None:
        """Start the step's clock."""
        self._trainer.begin_step()

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the signature is the loop's
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """If a stop was asked for, or the budget is used up, write a checkpoint and leave the loop."""
        job = self._trainer.recipe.job
        if job.stop():
            # A stop waits for the checkpoint alone: the resumed run makes the evaluation instead.
            control.should_evaluate = False
            control.should_save = True
            control.should_training_stop = True
        # At the last step the training ends anyway, and not by its budget.
        elif state.global_step < state.max_steps and job.meter.check_budget(
            state.global_step, self._trainer.progress.tokens_seen
        ):
            control.should_save = True
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        """Complete the checkpoint, then announce it."""
        job, progress = self._trainer.recipe.job, self._trainer.progress
        incoming = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        # Before the manifest is written, which has to name these files too: a resumed run refuses unnamed ones.
        self._trainer.write_extras(incoming)
        path = finish_checkpoint(
            incoming, job.workdir, step=state.global_step, progress=progress, base_id=job.spec.base.id
        )
        job.sink.emit(CheckpointEvent(step=state.global_step, path=path, metrics=progress.latest_metrics()))
