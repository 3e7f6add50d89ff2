"""A model as a grader and no second one in memory: the base with its adapters off, or the model at the start.

Questions are answered in batches, each with the seed and the sampling of its grader, so that the same answers get the
same grades.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.contract.rows import Message
from trainer.engine.answer_format.answer_reader import AnswerReader
from trainer.engine.chat_template.render import RefusedRowError
from trainer.engine.onpolicy.roles import Role
from trainer.engine.onpolicy.rollout import RolloutSampling, sample
from trainer.graders import Failure, GraderQuestion, Reply
from trainer.kit.errors import TrainerError

if TYPE_CHECKING:
    from trainer.engine.onpolicy.recipe import OnPolicyRecipe

MAX_TOKENS = 128
"""Of a grade if the grader names no limit: it is a number or a little JSON."""
# A nucleus this small is the likeliest token alone.
_LIKELIEST = 1e-9
_SEEDS = 2**63


class ModelGraders:
    """Answers graders' questions with the weights that the job has in memory anyway."""

    def __init__(self, recipe: OnPolicyRecipe) -> None:
        self._recipe = recipe
        self._reader: AnswerReader | None = None

    def ask_all(self, questions: Sequence[GraderQuestion]) -> list[Reply | Failure]:
        """Return the replies in the questions' order. Raises TrainerError if a model is not at hand."""
        found: dict[int, Reply | Failure] = {}
        alike: dict[str, list[int]] = {}
        for number, question in enumerate(questions):
            # A batch has one model, one sampling and one seed.
            alike.setdefault(json.dumps([question.model, question.sampling], sort_keys=True), []).append(number)
        for numbers in alike.values():
            found |= zip(numbers, self._answer_alike([questions[number] for number in numbers]), strict=True)
        return [found[number] for number in range(len(questions))]

    def _answer_alike(self, questions: Sequence[GraderQuestion]) -> list[Reply | Failure]:
        """Answer questions of one model and one sampling."""
        role, given = self._find_role(questions[0].model), questions[0].sampling
        room = int(given.get("max_completion_tokens") or MAX_TOKENS)
        prompts = [self._tokenize_question(question, room) for question in questions]
        asked = [prompt for prompt in prompts if not isinstance(prompt, Failure)]
        replies = iter(self._draw_replies(role, asked, given, room) if asked else [])
        return [prompt if isinstance(prompt, Failure) else next(replies) for prompt in prompts]

    def _draw_replies(self, role: Role, asked: list[tuple[int, ...]], given: dict[str, Any], room: int) -> list[Reply]:
        own = self._recipe.algorithm.sampling
        temperature = float(given.get("temperature") or 0.0)
        sampling = RolloutSampling(
            max_new_tokens=room,
            temperature=temperature or 1.0,
            top_p=float(given.get("top_p") or 1.0) if temperature else _LIKELIEST,
            stops=own.stops,
            pad_id=own.pad_id,
        )
        with self._recipe.roles.act_as(role) as model:
            drawn = sample(model, asked, sampling, int(given.get("seed") or 0) % _SEEDS)
        assert drawn is not None, "nothing asks it to stop"
        self._reader = self._reader or AnswerReader(self._recipe.data.template.tokenizer)
        # What the model thought about the grade is no grade.
        texts = [
            self._reader.read_answer(prompt, response.ids).text for prompt, response in zip(asked, drawn, strict=True)
        ]
        return [Reply(text=text, cut=not response.ended) for text, response in zip(texts, drawn, strict=True)]

    def _tokenize_question(self, question: GraderQuestion, room: int) -> tuple[int, ...] | Failure:
        template = self._recipe.data.template
        messages = tuple(Message.model_validate(one) for one in question.messages)
        try:
            ids = template.encode_prompt(messages, None).ids
        except RefusedRowError as error:
            return Failure("model_grader_server_error", f"the model's chat template cannot render the input: {error}")
        if len(ids) + room > self._recipe.data.context:
            return Failure(
                "model_grader_server_error",
                f"the input has {len(ids)} tokens, which with {room} for the grade do not fit the model's context of "
                f"{self._recipe.data.context}",
            )
        return ids

    def _find_role(self, name: str) -> Role:
        spec = self._recipe.job.spec
        if name == spec.base.id:
            return "base"
        if spec.start is not None and name in (spec.start.id, spec.start.job_id):
            return "reference"
        raise TrainerError(
            "invalid_job",
            f"The grader's model {name} is neither the job's base {spec.base.id} nor the model that it starts from.",
            param="method.reinforcement.grader.model",
        )
