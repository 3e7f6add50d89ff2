"""One iteration of PPO: answers drawn and scored, advantages, then some passes of updates over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trainer.engine.ppo.forward import Batch, collate, response_log_probs, response_values
from trainer.engine.ppo.losses import KlController, gae, policy_loss, token_rewards, value_loss, whiten
from trainer.engine.ppo.prompts import TokenizedPrompt, derived_seed
from trainer.engine.ppo.roles import Roles
from trainer.engine.ppo.rollout import Response, Sampling, sample
from trainer.engine.ppo.scorers import Scorer, checked
from trainer.errors import TrainerError
from trainer.methods.ppo import PpoHyperparameters

SAMPLING, SHUFFLING = 0, 1


@dataclass(frozen=True)
class Answers:
    """Answers under policy and reference, rows arranged by micro-batch: row r is the answer to prompt numbers[r].

    log_probs, reference and entropies are [rows, tokens] in nats with zeros outside `mask`; scores [rows] come from
    the reward, rewards [rows] are less the penalty for an answer without an end.
    """

    numbers: tuple[int, ...]
    batches: tuple[Batch, ...]
    ended: torch.Tensor
    mask: torch.Tensor
    log_probs: torch.Tensor
    reference: torch.Tensor
    entropies: torch.Tensor
    scores: torch.Tensor
    rewards: torch.Tensor

    @property
    def kl(self) -> torch.Tensor:
        """The k1 estimate of KL(policy ‖ reference) by answer [rows]."""
        return (self.log_probs - self.reference).sum(1)

    def facts(self) -> dict[str, float]:
        """Return the means that an iteration reports: `reward`, `score`, `kl`, `entropy`, lengths and ends."""
        return {
            "reward": float(self.rewards.mean()),
            "score": float(self.scores.mean()),
            "kl": float(self.kl.mean()),
            "entropy": float(self.entropies.sum() / self.mask.sum()),
            "response_length": float(self.mask.sum(1).float().mean()),
            "eos_rate": float(self.ended.float().mean()),
        }


@dataclass(frozen=True)
class _Experience:
    """What an update of one micro-batch needs: flat tensors [n] over its response tokens."""

    batch: Batch
    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor


@dataclass
class _Sums:
    """Sums over the updates of an iteration; `tokens` counts each token as often as it was trained on."""

    policy: float = 0.0
    value: float = 0.0
    clipped: float = 0.0
    value_clipped: float = 0.0
    kl: float = 0.0
    ratio: float = 0.0
    policy_tokens: int = 0
    value_tokens: int = 0
    grad_norm: float = 0.0
    updates: int = 0
    first_ratio_error: float = 0.0


class Ppo:
    """PPO on one base. Micro-batches are fixed when answers are scored: every later forward has the same shapes."""

    def __init__(
        self,
        roles: Roles,
        sampling: Sampling,
        score: Scorer,
        hyperparameters: PpoHyperparameters,
        *,
        batch_size: int,
        learning_rate: float,
        weight_decay: float,
        max_grad_norm: float,
        seed: int,
    ) -> None:
        self.roles = roles
        self.sampling = sampling
        self.score = score
        self.hyperparameters = hyperparameters
        self.controller = KlController(hyperparameters.kl_coef, hyperparameters.kl_target)
        self.trained = list(roles.trained.values())
        self.optimizer = torch.optim.AdamW(self.trained, lr=learning_rate, weight_decay=weight_decay)
        self._batch_size = batch_size
        self._max_grad_norm = max_grad_norm
        self._seed = seed

    def answer(
        self, prompts: Sequence[TokenizedPrompt], seed: int, should_stop: Callable[[], bool] = lambda: False
    ) -> Answers | None:
        """Draw one answer a prompt and score it; None where a stop was asked for while drawing."""
        model = self.roles.model
        was_training = model.training
        model.eval()
        try:
            drawn = sample(model, [prompt.input_ids for prompt in prompts], self.sampling, seed, should_stop)
            scores = checked(self.score(prompts, drawn)) if drawn is not None else []
        finally:
            model.train(was_training)
        return None if drawn is None else self._rescore(prompts, drawn, scores)

    def collect(
        self, prompts: Sequence[TokenizedPrompt], iteration: int, should_stop: Callable[[], bool] = lambda: False
    ) -> Answers | None:
        """Draw the answers of an iteration. Raises TrainerError (`policy_collapsed`)."""
        answers = self.answer(prompts, derived_seed(self._seed, iteration, SAMPLING), should_stop)
        if answers is not None:
            kl = float(answers.kl.mean())
            if not kl <= self.hyperparameters.kl_max:
                raise _collapsed(f"its KL to the reference is {kl:.4g} nats an answer", "kl_max")
        return answers

    def improve(self, answers: Answers, iteration: int) -> dict[str, float]:
        """Update policy and value on an iteration's answers, then the KL coefficient; return what is reported.

        Raises TrainerError (`policy_collapsed`) before an update that would not be a number.
        """
        given = self.hyperparameters
        experiences = self._experiences(answers)
        share = int(answers.mask.sum()) / given.minibatches
        sums = _Sums()
        for epoch in range(given.ppo_epochs):
            if not all(self._update(part, share, sums) for part in self._parts(experiences, iteration, epoch)):
                break
        facts = {**answers.facts(), "kl_coef": self.controller.coefficient, **_facts(sums, given.value_coef)}
        facts["objective"] = facts["reward"] - self.controller.coefficient * facts["kl"]
        self.controller.update(facts["kl"])
        return facts

    def _rescore(
        self, prompts: Sequence[TokenizedPrompt], drawn: Sequence[Response], scores: Sequence[float]
    ) -> Answers:
        """Compute log-probabilities with the training forward: sampling's, with its cache, differ in rounding."""
        numbers, batches = self._arrange(prompts, drawn)
        device = self.roles.model.device
        lengths = torch.tensor([len(drawn[number].ids) for number in numbers], device=device)
        mask = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
        with torch.no_grad():
            with self.roles.acting("policy") as model:
                own = [response_log_probs(model, batch, self.sampling.temperature) for batch in batches]
            with self.roles.acting("reference") as model:
                reference = [response_log_probs(model, batch, self.sampling.temperature)[0] for batch in batches]
        ended = torch.tensor([drawn[number].ended for number in numbers], device=device)
        found = torch.tensor([scores[number] for number in numbers], device=device)
        penalty = self.hyperparameters.missing_eos_penalty or 0.0
        return Answers(
            numbers=tuple(numbers),
            batches=tuple(batches),
            ended=ended,
            mask=mask,
            log_probs=_padded([pair[0] for pair in own], mask),
            reference=_padded(reference, mask),
            entropies=_padded([pair[1] for pair in own], mask),
            scores=found,
            rewards=found - penalty * ~ended,
        )

    def _arrange(self, prompts: Sequence[TokenizedPrompt], drawn: Sequence[Response]) -> tuple[list[int], list[Batch]]:
        sizes = [len(p.input_ids) + len(r.ids) for p, r in zip(prompts, drawn, strict=True)]
        numbers = sorted(range(len(sizes)), key=lambda number: sizes[number])
        groups = [numbers[start : start + self._batch_size] for start in range(0, len(numbers), self._batch_size)]
        pad, device = self.sampling.pad_id, self.roles.model.device
        return numbers, [
            collate([prompts[n].input_ids for n in group], [drawn[n].ids for n in group], pad, device)
            for group in groups
        ]

    def _experiences(self, answers: Answers) -> list[_Experience]:
        given, mask = self.hyperparameters, answers.mask
        with torch.no_grad(), self.roles.acting("value") as model:
            values = _padded([response_values(model, self.roles.value_head, batch) for batch in answers.batches], mask)
        rewards = token_rewards(
            answers.rewards, answers.log_probs, answers.reference, mask, self.controller.coefficient
        )
        if given.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = gae(rewards, values, mask, given.gamma, given.lam)
        if given.whiten_advantages:
            advantages = whiten(advantages, mask)
        sizes = [len(batch.targets) for batch in answers.batches]
        flat = (table[mask].split(sizes) for table in (answers.log_probs, values, advantages, returns))
        return [_Experience(*parts) for parts in zip(answers.batches, *flat, strict=True)]

    def _parts(self, experiences: list[_Experience], iteration: int, epoch: int) -> list[list[_Experience]]:
        """Return the pass's minibatches: the micro-batches in a new order, dealt out evenly."""
        seed = derived_seed(self._seed, iteration, SHUFFLING) * 64 + epoch
        order = torch.randperm(len(experiences), generator=torch.Generator().manual_seed(seed))
        parts = order.tensor_split(self.hyperparameters.minibatches)
        return [[experiences[number] for number in part.tolist()] for part in parts if len(part)]

    def _update(self, part: Sequence[_Experience], share: float, sums: _Sums) -> bool:
        """Take one optimizer step; `share` is the mean tokens of a minibatch. Return False to end the iteration.

        The backward passes of policy and value come one after the other: the peak is the larger of the two.
        """
        self.optimizer.zero_grad()
        kl = sum(self._policy_backward(one, share, sums) for one in part) / sum(len(one.log_probs) for one in part)
        stop = self.hyperparameters.kl_stop
        if stop is not None and kl > stop:
            return False
        for one in part:
            self._value_backward(one, share, sums)
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained, self._max_grad_norm))
        if not math.isfinite(norm):
            raise _collapsed("the gradient is not a finite number", "learning_rate_multiplier")
        self.optimizer.step()
        sums.grad_norm += norm
        sums.updates += 1
        return True

    def _policy_backward(self, one: _Experience, share: float, sums: _Sums) -> float:
        with self.roles.acting("policy") as model:
            new, _ = response_log_probs(model, one.batch, self.sampling.temperature)
            loss = policy_loss(new, one.log_probs, one.advantages, self.hyperparameters.clip_range)
            (loss.loss / share).backward()
        ratio = (new.detach() - one.log_probs).exp()
        if not sums.updates:
            sums.first_ratio_error = max(sums.first_ratio_error, float((ratio - 1).abs().max()))
        sums.policy += float(loss.loss.detach())
        sums.clipped += float(loss.clipped)
        sums.kl += float(loss.kl)
        sums.ratio += float(ratio.sum())
        sums.policy_tokens += len(new)
        return float(loss.kl)

    def _value_backward(self, one: _Experience, share: float, sums: _Sums) -> None:
        given = self.hyperparameters
        with self.roles.acting("value") as model:
            new = response_values(model, self.roles.value_head, one.batch)
            loss = value_loss(new, one.values, one.returns, given.value_clip_range)
            (given.value_coef * loss.loss / share).backward()
        sums.value += float(loss.loss.detach())
        sums.value_clipped += float(loss.clipped)
        sums.value_tokens += len(new)


def _padded(flat: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """Lay flat tensors [n] out as [rows, tokens], zeros outside the mask."""
    table = torch.zeros(mask.shape, device=mask.device, dtype=flat[0].dtype)
    table[mask] = torch.cat(list(flat))
    return table


def _facts(sums: _Sums, value_coef: float) -> dict[str, float]:
    tokens, updates = sums.policy_tokens, max(1, sums.updates)
    policy, value = sums.policy / tokens, sums.value / max(1, sums.value_tokens)
    return {
        "policy_loss": policy,
        "value_loss": value,
        "loss": policy + value_coef * value,
        "clip_fraction": sums.clipped / tokens,
        "value_clip_fraction": sums.value_clipped / max(1, sums.value_tokens),
        "update_kl": sums.kl / tokens,
        "ratio": sums.ratio / tokens,
        "first_ratio_error": sums.first_ratio_error,
        "updates": float(sums.updates),
        "grad_norm": sums.grad_norm / updates,
    }


def _collapsed(reason: str, param: str) -> TrainerError:
    return TrainerError(
        "policy_collapsed",
        f"The policy collapsed: {reason}. Lower learning_rate_multiplier, raise kl_coef or set kl_target; the last "
        "checkpoint is from before.",
        param=f"method.ppo.hyperparameters.{param}",
    )
