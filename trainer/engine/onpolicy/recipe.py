"""A job on the policy's own answers: prompts in, a policy adapter out, with reward against KL in the report."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

from peft import PeftModel

from trainer.contract.methods.base import Resolved
from trainer.engine.chat_template.end_of_turn import stop_ids
from trainer.engine.data.order import derived_seed, prompts_of_iteration
from trainer.engine.models.load import pick_device
from trainer.engine.onpolicy.answers import Answers
from trainer.engine.onpolicy.learner import LearnerRecipe
from trainer.engine.onpolicy.loop import OnPolicyLoop
from trainer.engine.onpolicy.prompts import PromptData, TokenizedPrompt
from trainer.engine.onpolicy.roles import RewardModel, Roles
from trainer.engine.onpolicy.rollout import RolloutSampling
from trainer.engine.onpolicy.scorers import Scorer
from trainer.engine.onpolicy.updates import OnPolicy, UpdateSettings
from trainer.kit.auto import rows_a_pass
from trainer.kit.plot_spec import PlotSpec
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure

EVALUATING = 2


class OnPolicyRecipe(LearnerRecipe):
    """Raise the reward of the model's own answers, and pay for every nat of KL to the model at the start."""

    pipeline = PromptData
    plots: ClassVar[tuple[PlotSpec, ...]] = (
        PlotSpec(title="Reward against KL to the starting model", y=("reward",), x="kl"),
        PlotSpec(title="Reward", y=("reward",)),
        PlotSpec(title="KL to the starting model, nats an answer", y=("kl",)),
        PlotSpec(title="Length of answers, tokens", y=("response_length",)),
        PlotSpec(title="Clipped share of tokens", y=("clip_fraction",)),
        PlotSpec(title="Entropy, nats a token", y=("entropy",)),
    )
    critic: ClassVar[bool]
    """Whether a value function is trained beside the policy."""

    @abstractmethod
    def make_algorithm(self, sampling: RolloutSampling, score: Scorer, settings: UpdateSettings) -> OnPolicy[Any, Any]:
        """Return what learns from the answers; `roles` are there."""

    @abstractmethod
    def make_scorer(self) -> Scorer:
        """Return what says how good an answer is; `roles` are there."""

    def load_reward(self, model: PeftModel) -> RewardModel | None:  # noqa: ARG002 - for recipes that have one
        """Return the reward model, if there is one; `model` is the policy's."""
        return None

    def prepare_model(self) -> None:
        """Load the base once, and put policy, value, reward and reference on it."""
        super().prepare_model()
        model = cast(PeftModel, self.model)
        reward = self.load_reward(model)
        continued, seed = self.job.start is not None, self.resolved.seed
        self.roles = Roles(model, reward=reward, continued=continued, seed=seed, critic=self.critic)
        if self.resolved.gradient_checkpointing:
            # The reentrant form needs inputs with a gradient, which frozen embeddings do not give.
            cast(Any, model.get_base_model()).activation_checkpointing_enable({"use_reentrant": False})
        # Activations are recomputed in training mode alone; `Roles` has switched dropout off for both modes.
        model.train(self.resolved.gradient_checkpointing)
        given = self.requested_hyperparameters
        known = cast(Any, model).generation_config.eos_token_id
        sampling = RolloutSampling(
            max_new_tokens=given.max_new_tokens,
            temperature=given.temperature,
            top_p=given.top_p,
            stops=stop_ids(self.data.template, known),
            pad_id=self.data.pad_id,
        )
        settings = UpdateSettings(
            batch_size=self.resolved.batch_size,
            learning_rate=self.resolved.learning_rate,
            weight_decay=self.resolved.weight_decay,
            max_grad_norm=self.resolved.max_grad_norm,
            seed=seed,
        )
        self.algorithm = self.make_algorithm(sampling, self.make_scorer(), settings)

    def resolve_hyperparameters(self) -> Resolved:
        """Count in iterations: as many as asked for, or as the epochs have prompts for."""
        resolved = super().resolve_hyperparameters()
        given, rows, prompts = self.requested_hyperparameters, len(self.data.training.rows), self.prompts_an_iteration
        total = math.ceil(rows * resolved.n_epochs / prompts) if given.iterations == "auto" else given.iterations
        minibatch = math.ceil(prompts * given.answers_a_prompt / given.minibatches)
        batch = min(minibatch, self.answers_a_pass(minibatch))
        fifth, evaluate = max(1, math.ceil(total / 5)), given.steps_between_evaluations
        return resolved.model_copy(
            update={
                "n_epochs": max(1, math.ceil(total * prompts / rows)),
                "total_steps": total,
                "batch_size": batch,
                "gradient_accumulation_steps": math.ceil(minibatch / batch),
                "warmup_steps": math.ceil(total * given.warmup_ratio),
                "eval_steps": fifth if evaluate == "auto" else evaluate,
                "checkpoint_steps": min(100, fifth) if given.checkpoint_steps == "auto" else given.checkpoint_steps,
                "settings": {**resolved.settings, "iterations": total},
            }
        )

    def answers_a_pass(self, minibatch: int) -> int:
        """Return how many answers go through the model at once, of a minibatch of so many."""
        passes = self.requested_hyperparameters.gradient_accumulation_steps
        if passes != "auto":
            return math.ceil(minibatch / passes)
        return (
            self.rows_fitting_pass
            if self.requested_hyperparameters.batch_size == "auto"
            else self.requested_hyperparameters.batch_size
        )

    @property
    def rows_fitting_pass(self) -> int:
        """How many of the longest answers a forward and backward pass has room for."""
        return rows_a_pass("cuda" if pick_device().type == "cuda" else "cpu", max(self.data.row_lengths()))

    def step_tokens(self, resolved: Resolved) -> None:
        """Return None: how long the answers will be is not known."""

    def most_tokens(self) -> int:
        """Return the tokens of a run whose answers are all as long as they may be."""
        lengths, given, resolved = self.data.row_lengths(), self.requested_hyperparameters, self.resolved
        iterations = (
            prompts_of_iteration(len(lengths), self.prompts_an_iteration, resolved.seed, iteration)
            for iteration in range(resolved.total_steps)
        )
        return sum(lengths[number] for numbers in iterations for number in numbers) * given.answers_a_prompt

    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Draw answers to each prompt, always with the same seed, and return reward, KL, length and ends.

        A prompt's measures are means over its answers.
        """
        rows = self.data.rows_to_measure(full=full)
        count = self.requested_hyperparameters.answers_a_check
        asked = [row for row in rows for _ in range(count)]
        answers = self.algorithm.draw_answers(asked, derived_seed(self.resolved.seed, 0, EVALUATING))
        assert answers is not None, "nothing asks an evaluation to stop"
        return _answer_measures(rows, answers, count)

    def make_loop(self, progress: TrainingProgress) -> OnPolicyLoop:
        """Return the iterations."""
        return OnPolicyLoop(self, progress)

    def choose_questions(self) -> None:
        """Choose the questions; answers may be as long as in training."""
        super().choose_questions()
        room = self.requested_hyperparameters.max_new_tokens
        self.questions = [replace(question, expected_tokens=room) for question in self.questions]

    def count_parameters(self) -> tuple[int, int]:
        """Count the policy as trained, and the value if there is one."""
        models = {id(self.model): self.model}
        if self.roles.reward:
            models[id(self.roles.reward.model)] = self.roles.reward.model
        modules = (*models.values(), *self.roles.active_heads())
        total = sum(parameter.numel() for module in modules for parameter in module.parameters())
        return sum(parameter.numel() for parameter in self.roles.trained.values()), total

    def export_result(self, folder: Path, card: str) -> None:
        """Write the policy's adapter alone."""
        self.roles.drop_other_adapters()
        super().export_result(folder, card)


def _answer_measures(rows: Sequence[TokenizedPrompt], answers: Answers, count: int) -> tuple[Measure, ...]:
    lines, ones = tuple(row.line for row in rows), (1.0,) * len(rows)

    def by_row(values: Any) -> tuple[float, ...]:
        arranged: list[float] = values.tolist()
        found = dict(zip(answers.numbers, arranged, strict=True))
        starts = range(0, len(rows) * count, count)
        return tuple(sum(float(found[start + number]) for number in range(count)) / count for start in starts)

    def make_measure(name: str, label: str, values: Any, **more: Any) -> Measure:
        return Measure(name=name, label=label, lines=lines, sums=by_row(values), weights=ones, **more)

    return (
        make_measure("reward", "reward", answers.rewards, better="higher"),
        make_measure("kl", "KL to the starting model", answers.kl, unit="nats an answer"),
        make_measure("response_length", "length", answers.mask.sum(1), unit="tokens"),
        make_measure("eos_rate", "answers that end", answers.ended.int(), kind="rate"),
    )
