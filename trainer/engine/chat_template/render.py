"""The base's chat template as the one way from messages to tokens, in training, scoring, rollouts and chat alike.

Each trained turn is rendered as if it were the newest. P is what generation sees: the messages before it and the
opening of the answer. F is the same conversation with the answer. What F has behind P is trained, up to the stop that
ends the turn. Turns share a sequence as long as the rendering of later turns begins with theirs.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from trainer.contract.methods.base import ThoughtUse
from trainer.contract.rows import ChatRow, Message
from trainer.engine.chat_template.abilities import Abilities, make_word, probe_abilities
from trainer.engine.chat_template.checks import check_answer, check_shadow_prompt, check_shadow_turn, check_texts
from trainer.engine.chat_template.control_words import ControlWords, TextMarks
from trainer.engine.chat_template.encode import TextEncoder
from trainer.engine.chat_template.jinja import RENDER_ERRORS, Rendering, TemplateRunner
from trainer.engine.chat_template.messages import Arrangement, Note, arrange_messages
from trainer.engine.chat_template.sequences import TextSequence, join_turns
from trainer.engine.chat_template.settings import choose_forms, choose_settings
from trainer.engine.chat_template.shadows import Shadow, make_shadow, shape_of
from trainer.engine.chat_template.stop_words import read_stop_words
from trainer.engine.chat_template.turns import (
    TurnFinder,
    TurnShape,
    TurnText,
    UnclearTurnError,
    close_thoughts,
    describe_error,
)
from trainer.kit.errors import TrainerError

Tools = Sequence[dict[str, Any]] | None


class RefusedRowError(ValueError):
    """A conversation that the template cannot render rightly; the text says why, and what to do."""


@dataclass(frozen=True)
class EncodedSequence:
    """Token ids, and of each whether it is in the loss."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]


@dataclass(frozen=True)
class EncodedRow:
    """A row's sequences, one unless its template renders earlier turns otherwise, and what was written otherwise."""

    sequences: tuple[EncodedSequence, ...]
    notes: frozenset[Note]


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt up to the opening of the answer, and its messages as the template got them."""

    ids: tuple[int, ...]
    text: str
    messages: tuple[Rendering, ...]
    notes: frozenset[Note]


@dataclass(frozen=True)
class _Plan:
    """How conversations of one shape are rendered: with which abilities, and how their last turn ends."""

    abilities: Abilities
    as_text: int | None = None
    shape: TurnShape | None = None


class ChatTemplate:
    """The base's chat template together with the tokenizer that owns it.

    `folder` is the base's, for the tokens that its generation ends at; `day` is what templates take for today. Raises
    TrainerError (`unsupported_chat_template`) if the tokenizer has no template or it cannot render a plain
    conversation.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        folder: Path | None = None,
        day: date | None = None,
        thoughts: ThoughtUse = "train",
    ) -> None:
        self.tokenizer = tokenizer
        self.thoughts: ThoughtUse = thoughts
        if not tokenizer.chat_template:
            raise _unsupported_template("the base model has no chat template")
        self._runner = TemplateRunner(tokenizer, day or datetime.now(UTC).date())
        self._stops = read_stop_words(tokenizer, folder)
        self._plans: dict[Hashable, _Plan | UnclearTurnError] = {}
        try:
            words = ControlWords(tokenizer, self._runner.source)
            choose_forms(self._runner)
            self._runner.settings = choose_settings(self._runner)
        except RENDER_ERRORS as error:
            raise _unsupported_template(f"the base model's chat template cannot be read ({error})") from error
        self._words = words
        self._encoder = TextEncoder(tokenizer)
        self._finder = TurnFinder(self._runner, words)
        self._abilities = probe_abilities(self._runner)
        self._check_plain_conversation()

    @property
    def settings(self) -> dict[str, Any]:
        """The variables that the template is run with, such as `enable_thinking`, because its defaults do not do."""
        return self._runner.settings

    @property
    def ends_of_turns(self) -> tuple[str, ...]:
        """The control tokens that end turns in what the template writes."""
        return tuple(self._finder.ends)

    @property
    def end_of_turn(self) -> str | None:
        """The token that ends an answer in text, None if neither the template nor the tokenizer has one."""
        return next(iter(self._finder.ends), None) or next(iter(self._stops), None)

    def encode_row(self, row: ChatRow) -> EncodedRow:
        """Return a row's sequences. Raises RefusedRowError."""
        messages = self._read_thoughts(row.messages)
        try:
            notes, marks, sequences = self._render_messages(messages, row.tools)
        except UnclearTurnError as error:
            raise RefusedRowError(str(error)) from error
        encoded = [
            EncodedSequence(*self._encoder.encode_segments(sequence.segments(), marks)) for sequence in sequences
        ]
        return EncodedRow(tuple(encoded), notes)

    def render_row(self, row: ChatRow) -> list[str]:
        """Return the texts of a row's sequences. Raises RefusedRowError."""
        try:
            _, marks, sequences = self._render_messages(self._read_thoughts(row.messages), row.tools)
        except UnclearTurnError as error:
            raise RefusedRowError(str(error)) from error
        return [marks.restore_text(sequence.text) for sequence in sequences]

    def render_answer(self, row: ChatRow, number: int) -> str:
        """Return message `number` as the model would write it, calls included, without the end of its turn.

        If the template cannot render it behind its prompt, it is the bare content.
        """
        messages = self._read_thoughts(row.messages[: number + 1])
        try:
            plan = self._plan_turn(messages, row.tools)
            marks = self._make_marks(messages)
            arrangement = arrange_messages(messages, row.tools, plan.abilities, marks, as_text=plan.as_text)
            turn = self._cut_turn(messages[number], arrangement, number, plan, marks)
        except UnclearTurnError:
            return row.messages[number].text
        shape = plan.shape
        assert shape is not None
        # Without its end, as answers are decoded without special tokens.
        return marks.restore_text(turn.answer.removesuffix(shape.tail[: shape.end] or shape.stop)).rstrip()

    def encode_prompt(self, messages: Sequence[Message], tools: Tools) -> EncodedPrompt:
        """Return what the model sees in front of its answer to these messages. Raises RefusedRowError."""
        messages = self._read_thoughts(messages)
        try:
            plan = self._plan_prompt(messages, tools)
            marks = self._make_marks(messages)
            arrangement = arrange_messages(messages, tools, plan.abilities, marks)
            text = self._finder.render_prompt(arrangement.messages, arrangement)
            check_texts(messages, tools, marks.restore_text(text), len(messages))
        except UnclearTurnError as error:
            raise RefusedRowError(str(error)) from error
        ids, _ = self._encoder.encode_segments([(text, False)], marks)
        prepared = tuple(
            {**message, "content": marks.restore_text(message["content"])} for message in arrangement.messages
        )
        return EncodedPrompt(ids, marks.restore_text(text), prepared, frozenset(arrangement.notes))

    def _render_messages(
        self, messages: Sequence[Message], tools: Tools
    ) -> tuple[frozenset[Note], TextMarks, list[TextSequence]]:
        marks = self._make_marks(messages)
        arranged: dict[tuple[Abilities, int | None], Arrangement] = {}
        turns: list[TurnText] = []
        arrangement: Arrangement | None = None
        for number in _trained_numbers(messages):
            plan = self._plan_turn(messages[: number + 1], tools)
            form = (plan.abilities, plan.as_text)
            if form not in arranged:
                arranged[form] = arrange_messages(messages, tools, plan.abilities, marks, as_text=plan.as_text)
            arrangement = arranged[form]
            turns.append(self._cut_turn(messages[number], arrangement, number, plan, marks))
        if arrangement is None:
            arrangement = arrange_messages(messages, tools, self._abilities, marks)
            arranged[self._abilities, None] = arrangement
        sequences = self._join(arrangement, turns, len(messages))
        for sequence in sequences:
            text = marks.restore_text(sequence.text)
            check_texts(messages, tools, text, sequence.last + 1)
        notes: frozenset[Note] = frozenset().union(*(arrangement.notes for arrangement in arranged.values()))
        return notes, marks, sequences

    def _cut_turn(
        self, message: Message, arrangement: Arrangement, number: int, plan: _Plan, marks: TextMarks
    ) -> TurnText:
        prompt, behind = self._finder.find_answer(arrangement, arrangement.places[number])
        assert plan.shape is not None
        turn = self._finder.cut_turn(number, prompt, behind, plan.shape)
        answer = marks.restore_text(turn.answer)
        if not check_answer(message, answer, number, without_thoughts="thoughts" in arrangement.notes):
            arrangement.notes.add("spaces")
        if message.reasoning_content and self.thoughts == "context":
            marked = marks.mark_text(message.reasoning_content, by_assistant=True)
            turn = replace(turn, learn_from=close_thoughts(turn.answer, marked.strip()))
        return turn

    def _join(self, arrangement: Arrangement, turns: Sequence[TurnText], count: int) -> list[TextSequence]:
        try:
            whole = self._runner.run_template(arrangement.messages, arrangement.tools)
        except RENDER_ERRORS as error:
            if not turns:
                raise UnclearTurnError(describe_error(error)) from error
            whole = None
        if not turns:
            return [TextSequence(whole or "", count - 1)]
        return join_turns(turns, whole, count - 1)

    def _plan_turn(self, messages: Sequence[Message], tools: Tools) -> _Plan:
        """Return how the last of these messages is rendered as an answer, behind the prompt that chat has for it."""
        key = ("turn", shape_of(messages, tools))
        if key not in self._plans:
            self._plans[key] = self._find_turn_plan(messages, tools)
        return _take_plan(self._plans[key])

    def _find_turn_plan(self, messages: Sequence[Message], tools: Tools) -> _Plan | UnclearTurnError:
        shadow = make_shadow(messages, tools)
        number = len(messages) - 1
        try:
            abilities = self._plan_prompt(messages[:-1], tools).abilities if number else self._abilities
        except UnclearTurnError as error:
            return error
        first: UnclearTurnError | None = None
        for as_text in (None, number) if messages[-1].tool_calls else (None,):
            try:
                return self._try_turn(shadow, abilities, as_text)
            except UnclearTurnError as error:
                first = first or error
        assert first is not None
        return first

    def _try_turn(self, shadow: Shadow, abilities: Abilities, as_text: int | None) -> _Plan:
        number = len(shadow.messages) - 1
        marks = TextMarks(self._words)
        arrangement = arrange_messages(shadow.messages, shadow.tools, abilities, marks, as_text=as_text)
        place = arrangement.places[number]
        prompt, behind = self._finder.find_answer(arrangement, place)
        words = [word for group in shadow.words[number].values() for word in group]
        follower = self._follow_turn(arrangement, place, prompt + behind)
        shape = self._finder.shape_turn(behind, words, self._stops, follower)
        turn = self._finder.cut_turn(number, prompt, behind, shape)
        check_shadow_turn(shadow, arrangement, turn)
        return _Plan(abilities, as_text, shape)

    def _plan_prompt(self, messages: Sequence[Message], tools: Tools) -> _Plan:
        """Return how a prompt is rendered: by the template's own forms, or with more of it as text."""
        key = ("prompt", shape_of(messages, tools))
        if key not in self._plans:
            self._plans[key] = self._find_prompt_plan(make_shadow(messages, tools))
        return _take_plan(self._plans[key])

    def _find_prompt_plan(self, shadow: Shadow) -> _Plan | UnclearTurnError:
        own = self._abilities
        first: UnclearTurnError | None = None
        without_answer: _Plan | None = None
        for abilities in dict.fromkeys((own, own.with_calls_as_text(), own.with_all_as_text())):
            try:
                arrangement = arrange_messages(shadow.messages, shadow.tools, abilities, TextMarks(self._words))
                text = self._finder.render_prompt(arrangement.messages, arrangement)
                check_shadow_prompt(shadow, arrangement, text, len(shadow.messages))
            except UnclearTurnError as error:
                first = first or error
            else:
                if self._takes_answer(arrangement):
                    return _Plan(abilities)
                without_answer = without_answer or _Plan(abilities)
        plan = without_answer or first
        assert plan is not None
        return plan

    def _takes_answer(self, arrangement: Arrangement) -> bool:
        """Return whether the template lets an answer follow these messages: some refuse only then."""
        answer: Rendering = {"role": "assistant", "content": make_word(998)}
        longer = Arrangement(messages=[*arrangement.messages, answer], tools=arrangement.tools)
        try:
            _, behind = self._finder.find_answer(longer, len(arrangement.messages))
        except UnclearTurnError:
            return False
        return answer["content"] in behind

    def _follow_turn(self, arrangement: Arrangement, place: int, text: str) -> str:
        """Return the stop of a turn that the template does not end: the token that it puts in front of the next one.

        Where that is no token that generation stops at, it is the model's own first one.
        """
        role = "tool" if arrangement.messages[place].get("tool_calls") else "user"
        call_id = next((call["id"] for call in arrangement.messages[place].get("tool_calls", ())), None)
        following: Rendering = {"role": role, "content": make_word(999)}
        if call_id:
            following["tool_call_id"] = call_id
        try:
            longer = self._runner.run_template([*arrangement.messages[: place + 1], following], arrangement.tools)
        except RENDER_ERRORS:
            longer = ""
        behind = longer[len(text) :].lstrip() if longer.startswith(text) else ""
        return next((stop for stop in self._stops if behind.startswith(stop)), next(iter(self._stops), ""))

    def _check_plain_conversation(self) -> None:
        plain = [Message(role="user", content="a"), Message(role="assistant", content="b")]
        try:
            self._plan_turn(plain, None)
        except UnclearTurnError as error:
            raise _unsupported_template(
                f"the base model's chat template fails on a plain conversation ({error})"
            ) from error

    def _make_marks(self, messages: Sequence[Message]) -> TextMarks:
        return TextMarks(self._words, (message.text for message in messages))

    def _read_thoughts(self, messages: Sequence[Message]) -> Sequence[Message]:
        if self.thoughts != "drop" or not any(message.reasoning_content for message in messages):
            return messages
        return [message.model_copy(update={"reasoning_content": None}) for message in messages]


def _take_plan(plan: _Plan | UnclearTurnError) -> _Plan:
    if isinstance(plan, UnclearTurnError):
        raise UnclearTurnError(str(plan))
    return plan


def _trained_numbers(messages: Sequence[Message]) -> list[int]:
    return [number for number, message in enumerate(messages) if message.trained]


def _unsupported_template(reason: str) -> TrainerError:
    return TrainerError(
        "unsupported_chat_template", f"Chat rows cannot be rendered: {reason}. Choose another model.", param="model"
    )
