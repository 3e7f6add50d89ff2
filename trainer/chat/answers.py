"""Answering one conversation: the prompt rendered and read, then answers drawn one after the other."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from trainer.chat.decode import Drawn, Read, draw, read
from trainer.chat.models import LoadedBase, Models
from trainer.chat.text import TextStream
from trainer.contract.chat import Ask, Began, Done, Ended, FinishReason, Piece, TokenLogprob
from trainer.contract.result import ExitCode
from trainer.contract.rows import ChatRow, Message
from trainer.kit.errors import TrainerError

Event = Began | Piece | Ended | Done


def answer(models: Models, ask: Ask, cancelled: Callable[[], bool]) -> Iterator[Event]:
    """Yield what is to be told of the answers to `ask`.

    Raises TrainerError (`unsupported_conversation`, `context_length_exceeded`, `invalid_adapter`, and what loading
    the base may raise), or FloatingPointError where the model's outputs are not numbers.
    """
    base = models.base(ask.base)
    prompt = _tokens(base, ask)
    room = base.context - len(prompt)
    if room < 1:
        raise TrainerError(
            "context_length_exceeded",
            f"The messages have {len(prompt)} tokens, and the model's context has room for {base.context}: leave "
            "some out.",
            param="messages",
        )
    yield Began(id=ask.id, prompt_tokens=len(prompt))
    with base.using(ask.adapter) as model:
        known = read(model, prompt)
        seed = secrets.randbits(63) if ask.sampling.seed is None else ask.sampling.seed
        for index in range(ask.sampling.n):
            generator = torch.Generator(model.device).manual_seed((seed + index) % 2**63)
            one = _Answer(base, model, known, ask, index, min(room, ask.sampling.max_tokens))
            yield from one.draw(generator, cancelled)
    yield Done(id=ask.id)


def _tokens(base: LoadedBase, ask: Ask) -> list[int]:
    """Render the messages with the model's template, open the assistant's turn, and tokenize.

    A row of training is rendered the same way: the template needs an assistant's message, which is left out again.
    """
    row = ChatRow(messages=(*ask.messages, Message(role="assistant", content="")), tools=ask.tools)
    try:
        messages, tools = base.template.messages(row)
        text = base.template.render(messages[:-1], tools, prompt=True)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise TrainerError(
            "unsupported_conversation",
            f"The model's chat template cannot render these messages: {error}.",
            param="messages",
        ) from error
    return list(base.template.tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass
class _Answer:
    base: LoadedBase
    model: Any
    prompt: Read
    ask: Ask
    index: int
    limit: int

    def draw(self, generator: torch.Generator, cancelled: Callable[[], bool]) -> Generator[Event, None, None]:
        sampling = self.ask.sampling
        stream = TextStream(self.base.template.tokenizer, sampling.stop)
        count, reason = 0, "length"
        for drawn in draw(self.model, self.prompt, sampling, generator, self.limit):
            count += 1
            if drawn.token in self.base.stops:
                reason = "stop"
                break
            yield from self._piece(stream.add(drawn.token), drawn)
            if stream.stopped or cancelled():
                reason = "stop" if stream.stopped else "cancelled"
                break
        yield from self._piece(stream.finish(), None)
        yield self._ended(reason, count)

    def _piece(self, text: str, drawn: Drawn | None) -> Iterator[Piece]:
        told = ()
        if drawn is not None and self.ask.sampling.top_logprobs is not None:
            told = (_told(self.base.template.tokenizer, drawn),)
        if text or told:
            yield Piece(id=self.ask.id, index=self.index, text=text, logprobs=told)

    def _ended(self, reason: FinishReason, count: int) -> Ended:
        return Ended(id=self.ask.id, index=self.index, finish_reason=reason, tokens=count)


def _told(tokenizer: PreTrainedTokenizerBase, drawn: Drawn) -> TokenLogprob:
    top = tuple(_named(tokenizer, token, logprob) for token, logprob in drawn.top)
    return _named(tokenizer, drawn.token, drawn.logprob).model_copy(update={"top": top})


def _named(tokenizer: PreTrainedTokenizerBase, token: int, logprob: float) -> TokenLogprob:
    """Name a token by its text. A part of a character has no text of its own, and its bytes are not told."""
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    whole = "\ufffd" not in text
    return TokenLogprob(token=text, bytes=tuple(text.encode()) if whole else None, logprob=logprob)


def not_finite(error: FloatingPointError) -> TrainerError:
    """Say that a model is broken."""
    return TrainerError(
        "broken_model",
        f"The model cannot answer: {error}. Its training has diverged; use one of its earlier checkpoints.",
        param="model",
        exit_code=ExitCode.FAULT,
    )
