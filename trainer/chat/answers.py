"""Answering one conversation: the prompt rendered and read, then answers drawn one after the other, with pauses."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from trainer.chat.decode import DrawnToken, ReadPrompt, draw_answer, read_prompt
from trainer.chat.models import BaseModelCache
from trainer.chat.text import TextStream
from trainer.chat.token_bytes import TokenBytes
from trainer.contract.chat import AnswerPiece, Ask, Began, Done, Ended, FinishReason, Paused, PieceLogprob, Resumed
from trainer.contract.result import ExitCode
from trainer.engine.answer_format.parts import AnswerParser, AnswerPart, OfferedTools
from trainer.engine.chat_template.render import ChatTemplate, RefusedRowError
from trainer.kit.errors import TrainerError

Event = Began | AnswerPiece | Ended | Paused | Resumed | Done


def _never_pauses() -> bool:
    return False


def answer_conversation(
    models: BaseModelCache, ask: Ask, is_cancelled: Callable[[], bool], pausing: Callable[[], bool] = _never_pauses
) -> Generator[Event]:
    """Yield what is to be reported of the answers to `ask`. After each `Paused` the models may be used for another.

    Raises TrainerError (`unsupported_conversation`, `context_length_exceeded`, `invalid_adapter`, and what loading
    the base may raise), or FloatingPointError if the model's outputs are not numbers.
    """
    with _Seat(models, ask) as seat:
        prompt = _tokenize_conversation(seat.template, ask)
        room = seat.context - len(prompt)
        if room < 1:
            raise TrainerError(
                "context_length_exceeded",
                f"The messages have {len(prompt)} tokens, and the model's context has room for {seat.context}: leave "
                "some out.",
                param="messages",
            )
        yield Began(id=ask.id, prompt_tokens=len(prompt))
        prompt_tokens = read_prompt(seat.take_model(), prompt)
        seed = secrets.randbits(63) if ask.sampling.seed is None else ask.sampling.seed
        for index in range(ask.sampling.n):
            if index and seat.out_of_time():
                yield Ended(id=ask.id, index=index, finish_reason="length", tokens=0)
                continue
            generator = torch.Generator(seat.take_model().device).manual_seed((seed + index) % 2**63)
            parser = seat.reader.open_parser(prompt, OfferedTools.from_wire(ask.tools))
            answer_draw = _AnswerDraw(seat, prompt_tokens, ask, index, min(room, ask.sampling.max_tokens), parser)
            yield from answer_draw.draw_pieces(generator, is_cancelled, pausing)
    yield Done(id=ask.id)


class _Seat:
    """One conversation's hold of its base and adapter, which it leaves while it pauses; it counts the time of work."""

    def __init__(self, models: BaseModelCache, ask: Ask) -> None:
        self._models = models
        self._ask = ask
        self._held = ExitStack()
        self._model: Any = None
        self._worked = 0.0
        base = models.load_base(ask.base)
        self.template, self.context, self.stops = base.template, base.context, base.stops
        self.reader, self.token_bytes = base.reader, base.token_bytes

    def __enter__(self) -> _Seat:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave_base()

    def take_model(self) -> Any:
        """Return the model as it is with the adapter. Raises TrainerError if it cannot be loaded."""
        if self._model is None:
            self._model = self._held.enter_context(
                self._models.load_base(self._ask.base).use_adapter(self._ask.adapter)
            )
            self._began = time.monotonic()
        return self._model

    def leave_base(self) -> None:
        """Keep nothing of the base, so that another one can take its place in memory."""
        self._held.close()
        if self._model is not None:
            self._worked += time.monotonic() - self._began
        self._model = None

    def out_of_time(self) -> bool:
        """Return whether the model has worked on the conversation for as long as it may."""
        seconds = self._ask.seconds
        return seconds is not None and self._worked + time.monotonic() - self._began >= seconds


def _tokenize_conversation(template: ChatTemplate, ask: Ask) -> list[int]:
    """Render the messages with the model's template, open the assistant's turn, and tokenize, as rows are trained."""
    try:
        return list(template.encode_prompt(ask.messages, ask.tools).ids)
    except RefusedRowError as error:
        raise TrainerError(
            "unsupported_conversation",
            f"The model's chat template cannot render these messages: {error}.",
            param="messages",
        ) from error


@dataclass
class _AnswerDraw:
    seat: _Seat
    prompt: ReadPrompt
    ask: Ask
    index: int
    limit: int
    parser: AnswerParser

    def draw_pieces(
        self, generator: torch.Generator, is_cancelled: Callable[[], bool], pausing: Callable[[], bool]
    ) -> Generator[Event]:
        sampling = self.ask.sampling
        stream = TextStream(self.seat.template.tokenizer, sampling.stop, self.seat.reader.token_marks.by_id)
        count, reason = 0, "length"
        for token in draw_answer(self.seat.take_model, self.prompt, sampling, generator, self.limit):
            count += 1
            if token.token in self.seat.stops:
                reason = "stop"
                break
            parts = self.parser.add_text(stream.add_token(token.token))
            yield from self._make_pieces(parts, self._show_logprobs(token))
            if stream.stopped or is_cancelled():
                reason = "stop" if stream.stopped else "cancelled"
                break
            if self.seat.out_of_time():
                break
            if pausing():
                yield from self._pause_answer()
        parts = self.parser.add_text(stream.finish_text())
        yield from self._make_pieces([*parts, *self.parser.finish_text()], ())
        yield self._make_end(reason, count)

    def _pause_answer(self) -> Generator[Event]:
        self.seat.leave_base()
        yield Paused(id=self.ask.id)
        self.seat.take_model()
        yield Resumed(id=self.ask.id)

    def _make_pieces(self, parts: Sequence[AnswerPart], logprobs: tuple[PieceLogprob, ...]) -> Iterator[AnswerPiece]:
        """Yield the parts; a token's log-probability comes at once, though its text may wait."""
        if logprobs and not parts:
            parts = [AnswerPart("content", "")]
        for part in parts:
            yield AnswerPiece(
                id=self.ask.id, index=self.index, text=part.text, kind=part.kind, tool=part.tool, logprobs=logprobs
            )
            logprobs = ()

    def _show_logprobs(self, token: DrawnToken) -> tuple[PieceLogprob, ...]:
        if self.ask.sampling.top_logprobs is None:
            return ()
        return (_token_logprobs(self.seat.template.tokenizer, self.seat.token_bytes, token),)

    def _make_end(self, reason: FinishReason, count: int) -> Ended:
        return Ended(id=self.ask.id, index=self.index, finish_reason=reason, tokens=count)


def _token_logprobs(
    tokenizer: PreTrainedTokenizerBase, token_bytes: TokenBytes, drawn_token: DrawnToken
) -> PieceLogprob:
    def name_token(token: int, logprob: float) -> PieceLogprob:
        # A part of a character has no text of its own: its bytes say what it is.
        text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
        return PieceLogprob(token=text, bytes=tuple(token_bytes.find_bytes(token)), logprob=logprob)

    top = tuple(name_token(token, logprob) for token, logprob in drawn_token.top)
    return name_token(drawn_token.token, drawn_token.logprob).model_copy(update={"top": top})


def make_broken_model_error(error: FloatingPointError) -> TrainerError:
    """Say that a model is broken."""
    return TrainerError(
        "broken_model",
        f"The model cannot answer: {error}. Its training has diverged; use one of its earlier checkpoints.",
        param="model",
        exit_code=ExitCode.FAULT,
    )
