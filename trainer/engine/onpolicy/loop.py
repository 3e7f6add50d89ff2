"""The iterations of a job on the policy's own answers: events, evaluations, checkpoints, exact resumes, cheap stops.

Answers, order and shuffles follow from (seed, iteration), so a checkpoint at an iteration's end needs no buffer and no
generator's state. It is written when the next answers have shown that the policy has not collapsed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from peft.utils import load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from trainer.contract.events import CheckpointEvent, StepEvent
from trainer.engine.data.order import prompts_of_iteration
from trainer.engine.loop.best import BestKeeper
from trainer.engine.loop.checkpoints import finish_checkpoint
from trainer.engine.loop.training_loop import evaluation_event
from trainer.engine.onpolicy.answers import Answers
from trainer.engine.onpolicy.learner import LearnerRecipe
from trainer.engine.onpolicy.prompts import TokenizedPrompt
from trainer.engine.onpolicy.roles import POLICY
from trainer.kit.auto import learning_rate_factor
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure
from trainer.kit.workdir import INCOMING_FOLDER

VALUE_NAME = "value.safetensors"
OPTIMIZER_NAME = "optimizer.pt"
# What scoring the same tokens twice may differ by in float32, if old and new policy are one.
RATIO_TOLERANCE = 1e-6


class OnPolicyLoop:
    """One job's iterations. `final` are the measures of all held-out rows at the last one, None before."""

    def __init__(self, recipe: LearnerRecipe, progress: TrainingProgress) -> None:
        self.recipe = recipe
        self.progress = progress
        self.final: tuple[Measure, ...] | None = None
        self._best = BestKeeper(recipe, lambda: recipe.roles.policy_parameters)
        self._saved = -1
        self._first = 0
        self._started = 0.0

    def fit(self, checkpoint: Path | None) -> None:
        """Run to the last iteration, from the checkpoint's if there is one.

        If a stop is asked for, answers being drawn are given up, updates under way are finished, and a checkpoint
        is written. Raises TrainerError (`policy_collapsed`).
        """
        resolved = self.recipe.resolved
        done = self._restore_checkpoint(checkpoint) if checkpoint else 0
        self._first, self._saved, self._started = done, done, time.perf_counter()
        # A stop leaves the evaluation of its iteration out: the resumed run begins with it.
        ended = self._evaluate_if_due(done) or self._best.ended_early(done)
        while done < resolved.total_steps and not ended and not self._budget_is_spent(done):
            started = time.perf_counter()
            prompts = self._iteration_prompts(done)
            answers = self.recipe.algorithm.collect_answers(prompts, done, self.recipe.job.stop)
            if answers is None:
                break
            # Only now: a policy that had collapsed would have failed while its answers were collected.
            if done % resolved.checkpoint_steps == 0:
                self._save_checkpoint(done)
            self._update_policy(answers, prompts, done, started)
            done += 1
            if self.recipe.job.stop():
                break
            ended = self._evaluate_if_due(done)
        self._save_checkpoint(done)
        if self._best.restore_best(done):
            self.final = None

    def _budget_is_spent(self, done: int) -> bool:
        return self.recipe.job.meter.check_budget(done, self.progress.tokens_seen)

    @property
    def _state_name(self) -> str:
        return f"{self.recipe.job.spec.method.type}.json"

    def _iteration_prompts(self, iteration: int) -> list[TokenizedPrompt]:
        """Return the iteration's prompts, each as often as it is to be answered."""
        rows, given = self.recipe.data.training.rows, self.recipe.requested_hyperparameters
        numbers = prompts_of_iteration(
            len(rows), self.recipe.prompts_an_iteration, self.recipe.resolved.seed, iteration
        )
        return [rows[number] for number in numbers for _ in range(given.answers_a_prompt)]

    def _update_policy(self, answers: Answers, prompts: list[TokenizedPrompt], done: int, started: float) -> None:
        """Update on the answers and emit the iteration's event."""
        resolved, algorithm, progress = self.recipe.resolved, self.recipe.algorithm, self.progress
        factor = learning_rate_factor(
            resolved.lr_scheduler, done, warmup=resolved.warmup_steps, total=resolved.total_steps
        )
        for group in algorithm.optimizer.param_groups:
            group["lr"] = resolved.learning_rate * factor
        facts = algorithm.improve_policy(answers, done)
        self.recipe.review_iteration(facts)
        self._check_ratio(facts.pop("first_ratio_error"), done)
        tokens = int(answers.mask.sum()) + sum(len(prompt.input_ids) for prompt in prompts)
        seconds = time.perf_counter() - started
        progress.tokens_seen += tokens
        progress.train_seconds += seconds
        step = done + 1
        each = (time.perf_counter() - self._started) / (step - self._first)
        event = StepEvent(
            step=step,
            total_steps=resolved.total_steps,
            epoch=step * self.recipe.prompts_an_iteration / len(self.recipe.data.training.rows),
            train_loss=facts.pop("loss"),
            grad_norm=facts.pop("grad_norm"),
            learning_rate=resolved.learning_rate * factor,
            metrics=facts,
            tokens_seen=progress.tokens_seen,
            tokens_per_second=tokens / seconds,
            seconds_left=each * (resolved.total_steps - step),
        )
        progress.steps.append(event)
        self.recipe.job.sink.emit(event)

    def _check_ratio(self, error: float, done: int) -> None:
        # Once a run is enough, and bfloat16 rounds more coarsely than that.
        if done == self._first and self.recipe.dtype.dtype == "float32" and error > RATIO_TOLERANCE:
            self.recipe.job.warn(
                f"Scoring the same answers twice gave probabilities that differ by {error:.1e} of their size, where "
                f"{RATIO_TOLERANCE:.0e} is expected: the ratio of new to old policy has that error."
            )

    def _evaluate_if_due(self, step: int) -> bool:
        """Measure on the held-out rows if it is due and was not done; return whether to end early."""
        resolved = self.recipe.resolved
        last = step == resolved.total_steps
        lacking = self.progress.lacks_evaluation(step, resolved.eval_steps, resolved.total_steps)
        if self.recipe.data.validation is None or not lacking:
            return False
        measures = self.recipe.measure_model(full=last or self._best.compares_evaluations)
        if last:
            self.final = measures
        event = evaluation_event(self.recipe, "tuned", step, measures)
        self.progress.evaluations.append(event)
        self.recipe.job.sink.emit(event)
        return self._best.compare_evaluation(step, measures[0])

    def _save_checkpoint(self, step: int) -> None:
        """Write a checkpoint of an iteration's end, once."""
        if step == self._saved:
            return
        recipe, job = self.recipe, self.recipe.job
        folder = job.workdir / INCOMING_FOLDER / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        # Reward and reference never change: a resumed run gets them where this one did.
        recipe.model.save_pretrained(str(folder), selected_adapters=[POLICY], save_embedding_layers=False)
        recipe.data.tokenizer.save_pretrained(str(folder))
        values = {name: value.detach() for name, value in recipe.roles.value_parameters.items()}
        if values:
            save_file(values, folder / VALUE_NAME)
        torch.save(recipe.algorithm.optimizer.state_dict(), folder / OPTIMIZER_NAME)
        state = {"iteration": step, **recipe.algorithm.iteration_state()}
        (folder / self._state_name).write_text(json.dumps(state), encoding="utf-8")
        self._best.save(folder)
        path = finish_checkpoint(folder, job.workdir, step=step, progress=self.progress, base_id=job.spec.base.id)
        self._saved = step
        job.sink.emit(CheckpointEvent(step=step, path=path, metrics=self.progress.latest_metrics()))

    def _restore_checkpoint(self, folder: Path) -> int:
        """Restore everything from a checkpoint; return how many iterations were done."""
        recipe = self.recipe
        set_peft_model_state_dict(recipe.model, load_peft_weights(str(folder), device="cpu"), adapter_name=POLICY)
        values = load_file(folder / VALUE_NAME) if recipe.roles.value_parameters else {}
        with torch.no_grad():
            for name, value in values.items():
                recipe.roles.value_parameters[name].copy_(value)
        # Tensors and numbers alone: a checkpoint has travelled, and a pickle could run code.
        recipe.algorithm.optimizer.load_state_dict(torch.load(folder / OPTIMIZER_NAME, weights_only=True))
        state = json.loads((folder / self._state_name).read_text(encoding="utf-8"))
        recipe.algorithm.restore_state(state)
        self._best.load(folder)
        return int(state["iteration"])
