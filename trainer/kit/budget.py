"""What a job may use up: planned if its size is known beforehand, watched step by step if it is not."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from trainer.contract.job import Budget
from trainer.contract.methods.base import CommonHyperparameters, Resolved
from trainer.kit.auto import with_steps
from trainer.kit.errors import TrainerError


class BudgetMeter:
    """Watches one run's budget. `spent` is the sentence that says what ended the training, None while nothing has."""

    def __init__(self, budget: Budget | None, used_seconds: float) -> None:
        self._budget = budget or Budget.model_construct()
        self._used = used_seconds
        self._started = time.monotonic()
        self._planned: tuple[int, int] | None = None
        self.spent: str | None = None

    def plan_steps(
        self, resolved: Resolved, hyperparameters: CommonHyperparameters, step_tokens: Iterable[int] | None
    ) -> Resolved:
        """Return the numbers of a run that keeps within the budget, its schedule over the steps that it allows.

        `step_tokens` are the tokens of each step of the whole run, None if they are not known beforehand.
        Raises TrainerError (`budget_too_small`) if the tokens do not suffice for one step.
        """
        whole = resolved.total_steps
        steps = min(whole, self._budget.max_steps or whole)
        if self._budget.max_tokens is not None and step_tokens is not None:
            steps = min(steps, _steps_within(self._budget.max_tokens, step_tokens))
        if steps == whole:
            return resolved
        self._planned = (steps, whole)
        return with_steps(resolved, hyperparameters, steps)

    @property
    def plan_sentence(self) -> str | None:
        """A sentence if the budget allows less than the whole run."""
        if self._planned is None:
            return None
        steps, whole = self._planned
        return f"The budget allows {steps} of {whole} steps: the training is planned for these."

    def check_budget(self, step: int, tokens_seen: int) -> bool:
        """Return whether what could not be planned is used up after a step, and note it."""
        reason = next(self._list_exceeded_limits(tokens_seen), None)
        if reason is not None:
            self.spent = f"The budget ended the training at step {step}: {reason}."
        return reason is not None

    def conclude_training(self, step: int) -> str | None:
        """Return what the budget did to a training that is over, None if it did nothing."""
        if self.spent is None and self._planned is not None and step >= self._planned[0]:
            self.spent = f"The budget ended the training at step {step} of {self._planned[1]}."
        return self.spent

    def _list_exceeded_limits(self, tokens_seen: int) -> Iterator[str]:
        tokens, minutes = self._budget.max_tokens, self._budget.max_gpu_minutes
        if tokens is not None and tokens_seen >= tokens:
            yield f"{tokens_seen} tokens were trained on, {tokens} are allowed"
        used_minutes = (self._used + time.monotonic() - self._started) / 60
        if minutes is not None and used_minutes >= minutes:
            yield f"the job has run for {used_minutes:.1f} minutes, {minutes:g} are allowed"


def _steps_within(limit: int, step_tokens: Iterable[int]) -> int:
    steps, tokens, first = 0, 0, 0
    for size in step_tokens:
        first = first or size
        tokens += size
        if tokens > limit:
            break
        steps += 1
    if not steps:
        raise TrainerError(
            "budget_too_small",
            f"The budget of {limit} tokens is less than the first step takes, which is {first}: raise max_tokens, or "
            "lower batch_size or gradient_accumulation_steps.",
            param="budget.max_tokens",
        )
    return steps
