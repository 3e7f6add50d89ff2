"""`reinforcement` as a job: GRPO with a grader as the judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, cast

from trainer.contract.job import DataFile, JobSpec
from trainer.contract.methods.base import Resolved
from trainer.contract.methods.reinforcement import ReinforcementHyperparameters, ReinforcementMethod
from trainer.contract.result import ExitCode
from trainer.contract.rows import ItemRow, PromptRow
from trainer.engine.data.splits import format_lines
from trainer.engine.onpolicy.answers import Answers
from trainer.engine.onpolicy.prompts import PromptData
from trainer.engine.onpolicy.rollout import RolloutSampling
from trainer.engine.onpolicy.scorers import Scorer
from trainer.engine.onpolicy.updates import UpdateSettings, UpdateSums
from trainer.graders import AnyGrader, Failure, python_sources, reference_fields, required_fields
from trainer.graders.sandbox import check_python
from trainer.graders.templates import find_field
from trainer.kit.errors import TrainerError
from trainer.recipes.grpo.iteration import Grpo
from trainer.recipes.grpo.recipe import GroupRecipe
from trainer.recipes.reinforcement.asking import ModelGraders
from trainer.recipes.reinforcement.grading import PLACE, Grading


def grader_of(spec: JobSpec) -> AnyGrader:
    """Return the job's grader."""
    assert isinstance(spec.method, ReinforcementMethod)
    return spec.method.reinforcement.grader


class GradedGrpo(Grpo):
    """GRPO whose rewards are grades."""

    method: ClassVar[str] = "reinforcement"
    score: Grading

    @property
    def reward_place(self) -> str:
        """The grader's place on the wire."""
        return PLACE

    def report_iteration(self, answers: Answers, sums: UpdateSums) -> dict[str, float]:
        """Return the iteration's means; `grader_errors` is the share of answers that could not be graded."""
        return {**super().report_iteration(answers, sums), "grader_errors": self.score.failed}


class GradedPromptData(PromptData):
    """Prompts with the fields that the grader's templates name."""

    row = ItemRow

    @property
    def grader(self) -> AnyGrader:
        """The judge."""
        return grader_of(self.job.spec)

    def read_data(self) -> None:
        """Check the grader and read the rows. Raises TrainerError (`invalid_grader`, `python_graders_off`, …)."""
        self._check_sources()
        super().read_data()
        effort = cast(ReinforcementHyperparameters, self.hyperparameters).reasoning_effort
        if effort != "default":
            self.job.warn(
                f"reasoning_effort {effort} changes nothing: {self.job.spec.base.id} has no such setting. How long its "
                "answers may be is max_new_tokens."
            )

    def check_rows(self, file: DataFile, rows: Sequence[PromptRow], param: str) -> None:
        """Check that rows have every field that the grader's templates name, and a text in what it looks for."""
        references = set(reference_fields(self.grader))
        for path in required_fields(self.grader):
            name = ".".join(str(step) for step in path)
            values = [(row.line, find_field(row.item, path)) for row in rows if isinstance(row, ItemRow)]
            lacking = [line for line, value in values if value is None]
            empty = [line for line, value in values if value == "" and path in references]
            for lines, fault in (
                (lacking, "which is missing"),
                (empty, "which is empty, so that every answer has it in it,"),
            ):
                if lines:
                    raise TrainerError(
                        f"invalid_{param}",
                        f"{file.filename}: the grader asks for {{{{item.{name}}}}}, {fault} at {format_lines(lines)}.",
                        param=param,
                    )

    def _check_sources(self) -> None:
        written = python_sources(self.grader)
        if written and not self.job.spec.python_graders:
            raise TrainerError(
                "python_graders_off",
                "Python graders are switched off on this worker: its operator allows them by "
                "BURNISH_PYTHON_GRADERS=on.",
                param=PLACE,
            )
        for source in written:
            try:
                check_python(source)
            except Failure as failure:
                machine = failure.flag == "python_grader_server_error"
                raise TrainerError(
                    "grader_failed" if machine else "invalid_grader",
                    f"The Python grader cannot be run: {failure.message}.",
                    param=PLACE,
                    exit_code=ExitCode.FAULT if machine else ExitCode.BAD_INPUT,
                ) from failure


class ReinforcementRecipe(GroupRecipe):
    """Learn from how answers to one prompt compare with each other in a grader's eyes."""

    pipeline = GradedPromptData

    @property
    def reinforcement_hyperparameters(self) -> ReinforcementHyperparameters:
        """The hyperparameters as they were asked for."""
        return cast(ReinforcementHyperparameters, self.hyperparameters)

    def make_algorithm(self, sampling: RolloutSampling, score: Scorer, settings: UpdateSettings) -> GradedGrpo:
        """Return GRPO."""
        return GradedGrpo(self.roles, sampling, score, self.reinforcement_hyperparameters, settings)

    def make_scorer(self) -> Grading:
        """Score answers by the grader."""
        return Grading(
            self.data.template, grader_of(self.job.spec), ask_all=ModelGraders(self).ask_all, warn=self.job.warn
        )

    def answers_a_pass(self, minibatch: int) -> int:
        """Cut a minibatch into as many passes as `gradient_accumulation_steps`; `auto` is as few as fit."""
        passes = self.reinforcement_hyperparameters.gradient_accumulation_steps
        return self.rows_fitting_pass if passes == "auto" else math.ceil(minibatch / passes)

    def plan_hyperparameters(self) -> Resolved:
        """Turn every `auto` into a number, by the names of the wire: `batch_size` is the prompts of an iteration."""
        resolved, given = super().plan_hyperparameters(), self.reinforcement_hyperparameters
        named = {
            "batch_size": self.prompts_an_iteration,
            "compute_multiplier": 1.0 if given.compute_multiplier == "auto" else given.compute_multiplier,
            "eval_interval": resolved.eval_steps,
            "eval_samples": given.answers_a_check,
            "answers_a_prompt": given.answers_a_prompt,
        }
        return resolved.model_copy(update={"settings": {**resolved.settings, **named}})
