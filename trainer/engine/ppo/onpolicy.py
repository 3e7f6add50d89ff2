"""A job on the policy's own answers: prompts in, a policy adapter out, with reward against KL in the report."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

from peft import PeftModel

from trainer.auto import rows_a_pass
from trainer.engine.data import TokenizedRow
from trainer.engine.models import context_length, device, load_model, load_tokenizer
from trainer.engine.ppo.answers import Answers
from trainer.engine.ppo.loop import OnPolicyLoop
from trainer.engine.ppo.prompts import (
    TokenizedPrompt,
    as_conversation,
    derived_seed,
    prompts_of_iteration,
    stop_ids,
    tokenize_prompts,
)
from trainer.engine.ppo.roles import RewardModel, Roles, load_reward
from trainer.engine.ppo.rollout import Sampling
from trainer.engine.ppo.scorers import Scorer, function_scorer, model_scorer
from trainer.engine.ppo.updates import OnPolicy, UpdateSettings
from trainer.engine.recipe import Recipe, Split, lines_in_words
from trainer.errors import TrainerError
from trainer.methods.base import Resolved
from trainer.methods.onpolicy import FunctionReward, OnPolicyHyperparameters
from trainer.progress import Progress
from trainer.report.model import PlotSpec
from trainer.rows import ChatRow, PromptRow
from trainer.spec import DataFile
from trainer.statistics import Measure

EVALUATING = 2
# Enough answers for a curve while training goes on.
SUBSET_PROMPTS = 64


class OnPolicyRecipe(Recipe):
    """Raise the reward of the model's own answers, and pay for every nat of KL to the model at the start."""

    plots: ClassVar[tuple[PlotSpec, ...]] = (
        PlotSpec(title="Reward against KL to the starting model", y=("reward",), x="kl"),
        PlotSpec(title="Reward", y=("reward",)),
        PlotSpec(title="KL to the starting model, nats an answer", y=("kl",)),
        PlotSpec(title="Length of answers, tokens", y=("response_length",)),
        PlotSpec(title="Clipped share of tokens", y=("clip_fraction",)),
        PlotSpec(title="Entropy, nats a token", y=("entropy",)),
    )
    training: Split[TokenizedPrompt]
    validation: Split[TokenizedPrompt] | None = None
    roles: Roles
    algorithm: OnPolicy[Any, Any]
    critic: ClassVar[bool]
    """Whether a value function is trained beside the policy."""

    @property
    def given(self) -> OnPolicyHyperparameters:
        """The hyperparameters as they were asked for."""
        return cast(OnPolicyHyperparameters, self.hyperparameters)

    @abstractmethod
    def make_algorithm(self, sampling: Sampling, score: Scorer, settings: UpdateSettings) -> OnPolicy[Any, Any]:
        """Return what learns from the answers; `roles` are there."""

    def notice(self, facts: Mapping[str, float]) -> None:
        """Look at an iteration's report; nothing by default."""

    def read(self) -> None:
        """Render and tokenize the prompts. Raises TrainerError (`prompt_too_long`, `missing_reference`, …)."""
        self.open_base()
        self._rows: dict[str, list[PromptRow]] = {}
        spec = self.job.spec
        training = self._prompts(spec.training, "training_file")
        held_out = self._prompts(spec.validation, "validation_file") if spec.validation else None
        longest = max(len(prompt.input_ids) for prompt in training) if training else 0
        limit = self.limit(longest + self.given.max_new_tokens)
        self.training = self._split(spec.training, training, limit)
        if held_out is not None and spec.validation:
            self.validation = self._split(spec.validation, held_out, limit)
        self.tell_losses(f"prompt that leaves room for {self.given.max_new_tokens} new tokens")

    def load(self) -> None:
        """Load the base once, and put policy, value, reward and reference on it."""
        super().load()
        model = cast(PeftModel, self.model)
        reward = self._load_reward(model)
        continued, seed = self.job.start is not None, self.resolved.seed
        self.roles = Roles(model, reward=reward, continued=continued, seed=seed, critic=self.critic)
        if self.resolved.gradient_checkpointing:
            cast(Any, model.get_base_model()).activation_checkpointing_enable({"use_reentrant": False})
        model.train(self.resolved.gradient_checkpointing)
        given = self.given
        known = cast(Any, model).generation_config.eos_token_id
        sampling = Sampling(
            max_new_tokens=given.max_new_tokens,
            temperature=given.temperature,
            top_p=given.top_p,
            stops=stop_ids(self.template, known),
            pad_id=self.pad_id,
        )
        settings = UpdateSettings(
            batch_size=self.resolved.batch_size,
            learning_rate=self.resolved.learning_rate,
            weight_decay=self.resolved.weight_decay,
            max_grad_norm=self.resolved.max_grad_norm,
            seed=seed,
        )
        self.algorithm = self.make_algorithm(sampling, self._scorer(), settings)

    def resolve(self) -> Resolved:
        """Count in iterations: as many as asked for, or as the epochs have prompts for."""
        resolved = super().resolve()
        given, rows = self.given, len(self.training.rows)
        total = (
            math.ceil(rows * resolved.n_epochs / given.rollout_prompts)
            if given.iterations == "auto"
            else given.iterations
        )
        minibatch = math.ceil(given.rollout_prompts * given.answers_a_prompt / given.minibatches)
        fitting = rows_a_pass("cuda" if device().type == "cuda" else "cpu", max(self.lengths()))
        batch = min(minibatch, fitting if given.batch_size == "auto" else given.batch_size)
        fifth = max(1, math.ceil(total / 5))
        return resolved.model_copy(
            update={
                "n_epochs": max(1, math.ceil(total * given.rollout_prompts / rows)),
                "total_steps": total,
                "batch_size": batch,
                "gradient_accumulation_steps": math.ceil(minibatch / batch),
                "warmup_steps": math.ceil(total * given.warmup_ratio),
                "eval_steps": fifth if given.eval_steps == "auto" else given.eval_steps,
                "checkpoint_steps": min(100, fifth) if given.checkpoint_steps == "auto" else given.checkpoint_steps,
                "settings": {**resolved.settings, "iterations": total},
            }
        )

    def parts(self, row: TokenizedPrompt) -> list[tuple[str, TokenizedRow]]:
        """Return the prompt: what is trained on is written by the model later."""
        return [("prompt", TokenizedRow(row.line, row.input_ids, (False,) * len(row.input_ids)))]

    def step_tokens(self, resolved: Resolved) -> None:
        """Return None: how long the answers will be is not known."""

    def most_tokens(self) -> int:
        """Return the tokens of a run whose answers are all as long as they may be."""
        lengths, given, resolved = self.lengths(), self.given, self.resolved
        iterations = (
            prompts_of_iteration(len(lengths), given.rollout_prompts, resolved.seed, iteration)
            for iteration in range(resolved.total_steps)
        )
        return sum(lengths[number] for numbers in iterations for number in numbers) * given.answers_a_prompt

    def lengths(self) -> list[int]:
        """Return each prompt's tokens with the longest answer."""
        return [len(prompt.input_ids) + self.given.max_new_tokens for prompt in self.training.rows]

    def measure(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Draw one answer a prompt, always with the same seed, and return reward, KL, length and ends."""
        rows: Sequence[TokenizedPrompt] = self.measured.rows
        if not (full and self.validation):
            rows = rows[:: max(1, math.ceil(len(rows) / SUBSET_PROMPTS))]
        answers = self.algorithm.answer(rows, derived_seed(self.resolved.seed, 0, EVALUATING))
        assert answers is not None, "nothing asks an evaluation to stop"
        return _measures(rows, answers)

    def make_loop(self, progress: Progress) -> OnPolicyLoop:
        """Return the iterations."""
        return OnPolicyLoop(self, progress)

    def sample_rows(self) -> Sequence[ChatRow]:
        """Return the prompts of the rows that are measured."""
        lines = {prompt.line for prompt in self.measured.rows}
        file = self.measured.file
        return [as_conversation(row) for row in self._rows[file.path] if row.line in lines]

    def ask(self) -> None:
        """Choose the questions; answers may be as long as in training."""
        super().ask()
        room = self.given.max_new_tokens
        self.questions = [replace(question, expected_tokens=room) for question in self.questions]

    def parameters(self) -> tuple[int, int]:
        """Count the policy as trained, and the value where there is one."""
        models = {id(self.model): self.model}
        if self.roles.reward:
            models[id(self.roles.reward.model)] = self.roles.reward.model
        modules = (*models.values(), *self.roles.heads())
        total = sum(parameter.numel() for module in modules for parameter in module.parameters())
        return sum(parameter.numel() for parameter in self.roles.trained.values()), total

    def export(self, folder: Path, card: str) -> None:
        """Write the policy's adapter alone."""
        self.roles.shed()
        super().export(folder, card)

    def probes(self) -> Sequence[TokenizedRow]:
        """Return a few prompts to compare logits on."""
        return [
            TokenizedRow(prompt.line, prompt.input_ids, (False,) * len(prompt.input_ids))
            for prompt in self.measured.rows[:4]
        ]

    def _prompts(self, file: DataFile, param: str) -> list[TokenizedPrompt]:
        rows = self.read_file(file, param, PromptRow)
        self._rows[file.path] = rows
        reward = self.given.reward
        if isinstance(reward, FunctionReward) and reward.parsed().needs_reference:
            lacking = [row.line for row in rows if row.reference is None]
            if lacking:
                raise TrainerError(
                    f"invalid_{param}",
                    f"{file.filename}: the reward {reward.function} compares answers with the row's reference, which "
                    f"is missing at {lines_in_words(lacking)}.",
                    param=param,
                )
        prompts = tokenize_prompts(self.template, rows, param=param)
        room = context_length(self.config) - self.given.max_new_tokens
        over = [prompt.line for prompt in prompts if len(prompt.input_ids) > room]
        if over:
            raise TrainerError(
                "prompt_too_long",
                f"{file.filename}: with max_new_tokens {self.given.max_new_tokens} the model's context of "
                f"{context_length(self.config)} tokens is too short for the prompt(s) at {lines_in_words(over)}. "
                "Shorten them or lower max_new_tokens.",
                param=param,
            )
        return prompts

    def _split(self, file: DataFile, prompts: Sequence[TokenizedPrompt], limit: int) -> Split[TokenizedPrompt]:
        room = limit - self.given.max_new_tokens
        kept = [prompt for prompt in prompts if len(prompt.input_ids) <= room]
        return Split(
            file=file,
            rows=kept,
            read=len(prompts),
            tokens=sum(len(prompt.input_ids) for prompt in kept),
            trained_tokens=0,
            dropped=tuple(prompt.line for prompt in prompts if len(prompt.input_ids) > room),
        )

    @property
    def _reward_place(self) -> str:
        return f"method.{self.job.spec.method.type}.hyperparameters.reward.model"

    def _load_reward(self, model: PeftModel) -> RewardModel | None:
        """Put the reward job's adapter on the policy's base, or on its own where that is another."""
        named = self.job.spec.reward
        if isinstance(self.given.reward, FunctionReward):
            return None
        if named is None:
            raise TrainerError("invalid_job", "The job names a reward model, but none was staged.", param="reward")
        folder = self.job.workdir / "reward"
        if named.base == self.job.spec.base:
            return load_reward(folder, model, param=self._reward_place)
        base = self.job.workdir / "reward_base"
        if load_tokenizer(base).get_vocab() != self.tokenizer.get_vocab():
            raise TrainerError(
                "incompatible_reward_model",
                f"The reward model {named.id} is on {named.base.id}, whose tokenizer is not that of "
                f"{self.job.spec.base.id}: it would read other words than the policy writes. Train a reward model on "
                f"{self.job.spec.base.id}.",
                param=self._reward_place,
            )
        self.job.warn(
            f"The reward model is on another base, {named.base.id}: two base models are held in memory instead of one."
        )
        return load_reward(folder, load_model(base, self.dtype.dtype), param=self._reward_place)

    def _scorer(self) -> Scorer:
        reward = self.given.reward
        if isinstance(reward, FunctionReward):
            return function_scorer(self.template, reward)
        return model_scorer(self.template, self.roles)


def _measures(rows: Sequence[TokenizedPrompt], answers: Answers) -> tuple[Measure, ...]:
    lines, ones = tuple(row.line for row in rows), (1.0,) * len(rows)

    def by_row(values: Any) -> tuple[float, ...]:
        arranged: list[float] = values.tolist()
        found = dict(zip(answers.numbers, arranged, strict=True))
        return tuple(float(found[number]) for number in range(len(rows)))

    def measure(name: str, label: str, values: Any, **more: Any) -> Measure:
        return Measure(name=name, label=label, lines=lines, sums=by_row(values), weights=ones, **more)

    return (
        measure("reward", "reward", answers.rewards, better="higher"),
        measure("kl", "KL to the starting model", answers.kl, unit="nats an answer"),
        measure("response_length", "length", answers.mask.sum(1), unit="tokens"),
        measure("eos_rate", "answers that end", answers.ended.int(), kind="rate"),
    )
