"""What PPO and GRPO share: answers drawn and scored under policy and reference, then some passes of updates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch

from trainer.contract.methods.onpolicy import OnPolicyHyperparameters
from trainer.engine.data.order import derived_seed
from trainer.engine.onpolicy.answers import Answers, fill_mask
from trainer.engine.onpolicy.forward import Batch, collate_responses, response_log_probs
from trainer.engine.onpolicy.policy_loss import PolicyLoss
from trainer.engine.onpolicy.prompts import TokenizedPrompt
from trainer.engine.onpolicy.roles import Roles
from trainer.engine.onpolicy.rollout import RolloutSampling, sample
from trainer.engine.onpolicy.scorers import Scorer, require_finite_scores
from trainer.engine.scoring.generation import SampledResponse
from trainer.kit.errors import TrainerError

SAMPLING, SHUFFLING = 0, 1


@dataclass(frozen=True)
class UpdateSettings:
    """How weights are updated: `batch_size` is the answers of one forward and backward pass."""

    batch_size: int
    learning_rate: float
    weight_decay: float
    max_grad_norm: float
    seed: int


@dataclass(frozen=True)
class Experience:
    """What an update of one micro-batch needs: flat tensors [n] over its response tokens.

    Its loss is a sum over `items`, tokens or answers, of which an update takes the mean.
    """

    batch: Batch
    log_probs: torch.Tensor
    advantages: torch.Tensor
    items: int


@dataclass
class UpdateSums:
    """Sums over the updates of an iteration; tokens and items count as often as they were trained on."""

    policy: float = 0.0
    penalty: float = 0.0
    clipped: float = 0.0
    kl: float = 0.0
    ratio: float = 0.0
    tokens: int = 0
    items: int = 0
    value: float = 0.0
    value_clipped: float = 0.0
    value_tokens: int = 0
    grad_norm: float = 0.0
    updates: int = 0
    first_ratio_error: float = 0.0

    def update_means(self) -> dict[str, float]:
        """Return the means of the policy's updates. `policy_loss` is without the penalty."""
        return {
            "policy_loss": (self.policy - self.penalty) / self.items,
            "clip_fraction": self.clipped / self.tokens,
            "update_kl": self.kl / self.tokens,
            "ratio": self.ratio / self.tokens,
            "first_ratio_error": self.first_ratio_error,
            "updates": float(self.updates),
            "grad_norm": self.grad_norm / max(1, self.updates),
        }


H = TypeVar("H", bound=OnPolicyHyperparameters)
E = TypeVar("E", bound=Experience)


class OnPolicy(ABC, Generic[H, E]):
    """A policy that learns from its own answers, on one base.

    Micro-batches are fixed when answers are scored: every later forward has the same shapes.
    """

    method: ClassVar[str]
    remedy: ClassVar[str]
    """What to do about a collapse."""

    def __init__(
        self, roles: Roles, sampling: RolloutSampling, score: Scorer, hyperparameters: H, settings: UpdateSettings
    ) -> None:
        self.roles = roles
        self.sampling = sampling
        self.score = score
        self.hyperparameters = hyperparameters
        self.settings = settings
        self.trained = list(roles.trained.values())
        self.optimizer = torch.optim.AdamW(self.trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    @abstractmethod
    def make_experiences(self, answers: Answers) -> list[E]:
        """Return what updates on the answers need, one a micro-batch."""

    @abstractmethod
    def policy_loss(self, new: torch.Tensor, one: E) -> PolicyLoss:
        """Return the loss of a micro-batch whose response tokens now have the log-probabilities `new` [n]."""

    @abstractmethod
    def report_iteration(self, answers: Answers, sums: UpdateSums) -> dict[str, float]:
        """Return what an iteration reports, `loss` and `grad_norm` among it; called once, at the iteration's end."""

    def other_backward(self, part: Sequence[E], share: float, sums: UpdateSums) -> None:
        """Add the gradients of what is trained beside the policy; nothing by default."""

    def iteration_state(self) -> dict[str, float]:
        """Return the numbers that change from iteration to iteration, for checkpoints."""
        return {}

    def restore_state(self, state: Mapping[str, float]) -> None:
        """Restore what `iteration_state` gave."""

    def draw_answers(
        self, prompts: Sequence[TokenizedPrompt], seed: int, should_stop: Callable[[], bool] = lambda: False
    ) -> Answers | None:
        """Draw one answer a prompt and score it; None if a stop was asked for while drawing."""
        model = self.roles.model
        was_training = model.training
        # In training mode, layers that are recomputed take no cache: tokens would be drawn without their prompts.
        model.eval()
        try:
            asked = [prompt.input_ids for prompt in prompts]
            rate = self.hyperparameter_place("learning_rate_multiplier")
            drawn = sample(model, asked, self.sampling, seed, should_stop, param=rate)
            scores = (
                require_finite_scores(self.score(prompts, drawn), param=self.reward_place) if drawn is not None else []
            )
        finally:
            model.train(was_training)
        return None if drawn is None else self._rescore_answers(prompts, drawn, scores)

    def collect_answers(
        self, prompts: Sequence[TokenizedPrompt], iteration: int, should_stop: Callable[[], bool] = lambda: False
    ) -> Answers | None:
        """Draw the answers of an iteration. Raises TrainerError (`policy_collapsed`)."""
        answers = self.draw_answers(prompts, derived_seed(self.settings.seed, iteration, SAMPLING), should_stop)
        if answers is not None:
            kl = float(answers.kl.mean())
            # Not `kl >`: NaN is a collapse too, and greater than nothing.
            if not kl <= self.hyperparameters.kl_max:
                raise self._collapse_error(f"its KL to the reference is {kl:.4g} nats an answer", "kl_max")
        return answers

    def improve_policy(self, answers: Answers, iteration: int) -> dict[str, float]:
        """Update on an iteration's answers; return what is reported.

        Raises TrainerError (`policy_collapsed`) before an update that would not be a number.
        """
        experiences = self.make_experiences(answers)
        # One share for all minibatches: over a pass each item then weighs the same, however uneven they are.
        share = sum(one.items for one in experiences) / self.hyperparameters.minibatches
        sums = UpdateSums()
        for epoch in range(self.hyperparameters.passes):
            # `all` ends at the first False: kl_stop leaves the rest of the pass out.
            if not all(
                self._take_optimizer_step(part, share, sums)
                for part in self._shuffle_minibatches(experiences, iteration, epoch)
            ):
                break
        return self.report_iteration(answers, sums)

    @property
    def reward_place(self) -> str:
        """The place of the reward on the wire."""
        return self.hyperparameter_place("reward")

    def hyperparameter_place(self, name: str) -> str:
        """Return a hyperparameter's place on the wire."""
        return f"method.{self.method}.hyperparameters.{name}"

    def _rescore_answers(
        self, prompts: Sequence[TokenizedPrompt], drawn: Sequence[SampledResponse], scores: Sequence[float]
    ) -> Answers:
        """Compute log-probabilities with the training forward: sampling's, with its cache, differ in rounding."""
        numbers, batches = self._arrange_batches(prompts, drawn)
        device = self.roles.model.device
        lengths = torch.tensor([len(drawn[number].ids) for number in numbers], device=device)
        mask = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
        with torch.no_grad():
            with self.roles.act_as("policy") as model:
                own = [response_log_probs(model, batch, self.sampling.temperature) for batch in batches]
            with self.roles.act_as("reference") as model:
                reference = [response_log_probs(model, batch, self.sampling.temperature)[0] for batch in batches]
        ended = torch.tensor([drawn[number].ended for number in numbers], device=device)
        found = torch.tensor([scores[number] for number in numbers], device=device)
        penalty = self.hyperparameters.missing_eos_penalty or 0.0
        return Answers(
            numbers=tuple(numbers),
            batches=tuple(batches),
            ended=ended,
            mask=mask,
            log_probs=fill_mask([pair[0] for pair in own], mask),
            reference=fill_mask(reference, mask),
            entropies=fill_mask([pair[1] for pair in own], mask),
            scores=found,
            rewards=found - penalty * ~ended,
        )

    def _arrange_batches(
        self, prompts: Sequence[TokenizedPrompt], drawn: Sequence[SampledResponse]
    ) -> tuple[list[int], list[Batch]]:
        sizes = [len(p.input_ids) + len(r.ids) for p, r in zip(prompts, drawn, strict=True)]
        numbers = sorted(range(len(sizes)), key=lambda number: sizes[number])
        # Answers of similar length together, for little padding.
        step = self.settings.batch_size
        groups = [numbers[start : start + step] for start in range(0, len(numbers), step)]
        pad, device = self.sampling.pad_id, self.roles.model.device
        return numbers, [
            collate_responses([prompts[n].input_ids for n in group], [drawn[n].ids for n in group], pad, device)
            for group in groups
        ]

    def _shuffle_minibatches(self, experiences: list[E], iteration: int, epoch: int) -> list[list[E]]:
        """Return the pass's minibatches: the micro-batches in a new order, dealt out evenly."""
        seed = derived_seed(self.settings.seed, iteration, SHUFFLING) * 64 + epoch
        order = torch.randperm(len(experiences), generator=torch.Generator().manual_seed(seed))
        parts = order.tensor_split(self.hyperparameters.minibatches)
        return [[experiences[number] for number in part.tolist()] for part in parts if len(part)]

    def _take_optimizer_step(self, part: Sequence[E], share: float, sums: UpdateSums) -> bool:
        """Take one optimizer step; `share` is the mean items of a minibatch. Return False to end the iteration.

        The backward passes of policy and value come one after the other: the peak is the larger of the two.
        """
        self.optimizer.zero_grad()
        kl = sum(self._policy_backward(one, share, sums) for one in part) / sum(len(one.log_probs) for one in part)
        stop = self.hyperparameters.kl_stop
        # The gradients are there and are given up: this pass was the first to show how far the policy has moved.
        if stop is not None and kl > stop:
            return False
        self.other_backward(part, share, sums)
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained, self.settings.max_grad_norm))
        # Before the step, which would put NaN into every weight.
        if not math.isfinite(norm):
            raise self._collapse_error("the gradient is not a finite number", "learning_rate_multiplier")
        self.optimizer.step()
        sums.grad_norm += norm
        sums.updates += 1
        return True

    def _policy_backward(self, one: E, share: float, sums: UpdateSums) -> float:
        with self.roles.act_as("policy") as model:
            new, _ = response_log_probs(model, one.batch, self.sampling.temperature)
            loss = self.policy_loss(new, one)
            (loss.loss / share).backward()
        ratio = (new.detach() - one.log_probs).exp()
        # Until the first step old and new policy are one: the ratio is 1 but for rounding.
        if not sums.updates:
            sums.first_ratio_error = max(sums.first_ratio_error, float((ratio - 1).abs().max()))
        sums.policy += float(loss.loss.detach())
        sums.penalty += float(loss.penalty)
        sums.clipped += float(loss.clipped)
        sums.kl += float(loss.kl)
        sums.ratio += float(ratio.sum())
        sums.tokens += len(new)
        sums.items += one.items
        return float(loss.kl)

    def _collapse_error(self, reason: str, name: str) -> TrainerError:
        return TrainerError(
            "policy_collapsed",
            f"The policy collapsed: {reason}. {self.remedy}; the last checkpoint is from before.",
            param=self.hyperparameter_place(name),
        )
