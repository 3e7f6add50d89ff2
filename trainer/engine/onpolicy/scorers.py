"""What an answer is worth: a programmatic reward of its text, or a reward model's score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from trainer.contract.methods.onpolicy import FunctionReward
from trainer.engine.answer_format.answer_reader import AnswerReader
from trainer.engine.answer_format.parts import OfferedTools
from trainer.engine.chat_template.end_of_turn import closing_ids
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.data.batches import batches_within
from trainer.engine.onpolicy.forward import collate_responses, last_token_scores
from trainer.engine.onpolicy.prompts import TokenizedPrompt
from trainer.engine.onpolicy.reward_functions import score_texts
from trainer.engine.onpolicy.roles import Roles
from trainer.engine.scoring.generation import SampledResponse
from trainer.kit.errors import TrainerError

Scorer = Callable[[Sequence[TokenizedPrompt], Sequence[SampledResponse]], list[float]]


def function_scorer(template: ChatTemplate, reward: FunctionReward) -> Scorer:
    """Return a scorer of the answers' texts: what they say in the end, without thoughts and calls."""
    parameters = reward.parsed()
    reader = AnswerReader(template.tokenizer)

    def score_by_function(prompts: Sequence[TokenizedPrompt], responses: Sequence[SampledResponse]) -> list[float]:
        texts = [
            reader.read_answer(prompt.input_ids, response.ids, OfferedTools.from_wire(prompt.tools)).text
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        return score_texts(reward.function, parameters, texts, [prompt.reference for prompt in prompts])

    return score_by_function


def model_scorer(template: ChatTemplate, roles: Roles) -> Scorer:
    """Return a scorer by the reward model, which sees each answer closed as conversations were in its training.

    The score is read at the last token. An answer that did not end is closed too; `missing_eos_penalty` is its price.
    """
    closing = closing_ids(template)
    pad = template.tokenizer.pad_token_id
    assert isinstance(pad, int)

    def score_by_model(prompts: Sequence[TokenizedPrompt], responses: Sequence[SampledResponse]) -> list[float]:
        # Without the stop that was drawn: the closing tokens begin with the template's own.
        said = [(*(r.ids[:-1] if r.ended else r.ids), *closing) for r in responses]
        asked = [prompt.input_ids for prompt in prompts]
        scores: list[float] = [math.nan] * len(said)
        reward = roles.reward
        assert reward is not None
        with torch.no_grad(), roles.act_as("reward") as model:
            for numbers in batches_within(
                [len(a) + len(s) for a, s in zip(asked, said, strict=True)], model.device.type
            ):
                batch = collate_responses([asked[n] for n in numbers], [said[n] for n in numbers], pad, model.device)
                found: list[float] = last_token_scores(model, reward.head, batch).tolist()
                for number, value in zip(numbers, found, strict=True):
                    scores[number] = value
        return scores

    return score_by_model


def require_finite_scores(scores: Sequence[float], *, param: str) -> list[float]:
    """Return the scores. Raises TrainerError (`policy_collapsed`) if one is not a finite number, naming `param`."""
    if all(math.isfinite(score) for score in scores):
        return list(scores)
    raise TrainerError(
        "policy_collapsed",
        "The reward of an answer is not a finite number. Use dtype float32 or another reward model; the last "
        "checkpoint is good.",
        param=param,
    )
