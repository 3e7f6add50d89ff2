"""Each trained turn as if it were the newest: its prompt as generation sees it, and behind it what is to be written."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from trainer.engine.chat_template.abilities import make_word
from trainer.engine.chat_template.control_words import ControlWords
from trainer.engine.chat_template.jinja import RENDER_ERRORS, Rendering, TemplateRunner
from trainer.engine.chat_template.messages import Arrangement

_THOUGHT_MARKS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|think_start|>": "<|think_end|>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|channel>thought": "<channel|>",
    "Here are my reasoning steps:": "[BEGIN FINAL RESPONSE]",
}
"""How templates open thoughts, and how they close them."""
_THOUGHT_OPENING = re.compile("|".join(map(re.escape, _THOUGHT_MARKS)))


class UnclearTurnError(ValueError):
    """A turn that the template does not render as one that could be generated; the text says why."""


@dataclass(frozen=True)
class TurnShape:
    """What a template writes behind a turn's last word: `tail` from its first control token on.

    `end` characters of the tail belong to the turn, its stop the last of them. `padding` is white space in place of a
    tail, `stop` the token to append if nothing ends the turn.
    """

    tail: str
    end: int
    padding: str = ""
    stop: str = ""


@dataclass(frozen=True)
class TurnText:
    """One turn to train: `number` in the row, the prompt, the answer with its stop, and what the template adds."""

    number: int
    prompt: str
    answer: str
    rest: str
    learn_from: int = 0
    """The place in the answer that the loss begins at."""


class TurnFinder:
    """Finds turns in what a template renders."""

    def __init__(self, runner: TemplateRunner, words: ControlWords) -> None:
        self._runner = runner
        self._control_word = re.compile(
            "|".join(map(re.escape, sorted(words.special, key=len, reverse=True))) or "(?!)"
        )
        self._user_end = self._find_user_end()
        self.ends: dict[str, None] = {}
        """The tokens that end turns, in the order in which they were met."""

    def find_answer(self, arrangement: Arrangement, place: int) -> tuple[str, str]:
        """Return a turn's prompt, and all that the template writes behind it. Raises UnclearTurnError."""
        before, tools = arrangement.messages[:place], arrangement.tools
        newest = dict(arrangement.answers.get(place, arrangement.messages[place]))
        thoughts = newest.pop("thoughts", "")
        prompt = self.render_prompt(before, arrangement)
        try:
            full = self._runner.run_template([*before, newest], tools)
        except RENDER_ERRORS as error:
            raise UnclearTurnError(describe_error(error)) from error
        if full.startswith(prompt):
            behind = full[len(prompt) :]
            # Where the prompt does not open thoughts, as behind a tool's result, the answer does.
            return prompt, f"<think>\n{thoughts}\n</think>\n\n{behind}" if thoughts else behind
        base = self._render_base(before, arrangement, prompt)
        behind = (
            _continue_thoughts(base, prompt, full, thoughts)
            or self._skip_opening(base, prompt, full)
            or self._follow_newest_words(before, base, prompt, full)
            or _follow_all_words(prompt, full)
        )
        if not behind:
            raise UnclearTurnError(
                "what it writes in front of the answer is not what it writes when the answer is to be generated"
            )
        return prompt, behind

    def render_prompt(self, messages: Sequence[Rendering], arrangement: Arrangement) -> str:
        """Return what generation sees in front of an answer. Raises UnclearTurnError."""
        if not messages:
            raise UnclearTurnError("nothing comes before the assistant's message: give it weight 0, or a user's before")
        try:
            return self._runner.run_template(messages, arrangement.tools, prompt=True)
        except RENDER_ERRORS as error:
            raise UnclearTurnError(describe_error(error)) from error

    def shape_turn(self, answer: str, words: Collection[str], stops: Sequence[str], follower: str) -> TurnShape:
        """Return how a turn ends whose last word is one of `words`; `follower` ends it if nothing else does."""
        last = max((answer.rfind(word) + len(word) for word in words if word in answer), default=0)
        behind = answer[last:]
        controls = list(self._control_word.finditer(behind))
        if not controls:
            padding = behind if behind.isspace() else ""
            return TurnShape("", 0, padding, follower)
        start = controls[0].start()
        # A token that generation stops at, or that ends the user's turns too; otherwise the last one, as two may close
        # a turn, or a channel and the turn.
        ends = {*stops, self._user_end}
        end = next((word for word in controls if word.group() in ends), controls[-1])
        self.ends.setdefault(end.group())
        return TurnShape(behind[start:], end.end() - start)

    def cut_turn(self, number: int, prompt: str, behind: str, shape: TurnShape) -> TurnText:
        """Return the turn with its end. Raises UnclearTurnError if it ends otherwise than its shape says."""
        if shape.tail:
            if not behind.endswith(shape.tail):
                raise UnclearTurnError("the end of the answer is not clear")
            body = behind[: len(behind) - len(shape.tail)]
            return TurnText(number, prompt, body + shape.tail[: shape.end], shape.tail[shape.end :])
        body = behind.removesuffix(shape.padding) if shape.padding else behind
        return TurnText(number, prompt, body + shape.stop, "" if shape.stop else behind[len(body) :])

    def _find_user_end(self) -> str:
        """Return the control token behind a user's words, empty if there is none."""
        word = make_word(0)
        try:
            text = self._runner.run_template([{"role": "user", "content": word}], None, prompt=True)
        except RENDER_ERRORS:
            return ""
        end = self._control_word.search(text.rpartition(word)[2])
        return end.group() if end else ""

    def _render_base(self, before: Sequence[Rendering], arrangement: Arrangement, prompt: str) -> str:
        """Return what a prompt is without the opening of the answer."""
        try:
            base = self._runner.run_template(before, arrangement.tools)
        except RENDER_ERRORS:
            return ""
        return base if prompt.startswith(base) else ""

    def _skip_opening(self, base: str, prompt: str, full: str) -> str | None:
        """Return the answer if the template opens a turn for generation that it leaves out of a finished one.

        Some do so behind a tool's result, where a finished turn goes on without a header.
        """
        if not base or base == prompt or not full.startswith(base):
            return None
        behind = full[len(base) :]
        return None if self._control_word.match(behind.lstrip()) else behind

    def _follow_newest_words(self, before: Sequence[Rendering], base: str, prompt: str, full: str) -> str | None:
        """Return what stands behind the newest message's words and the opening of the answer, if that is in one place.

        It is for templates that write earlier words otherwise once an answer follows, such as a system message, or the
        end of a turn.
        """
        words = str(before[-1].get("content") or "").strip()
        place = prompt.rfind(words) if words else -1
        if place < 0:
            return None
        opening = prompt[place:]
        if full.count(opening) == 1:
            return full[full.index(opening) + len(opening) :]
        opening = prompt[len(base) :] if base else ""
        if not opening.strip() or full.count(words) != 1:
            return None
        closing, mark, behind = full[full.index(words) + len(words) :].partition(opening)
        return behind if mark and not self._control_word.sub("", closing).strip() else None


def _continue_thoughts(base: str, prompt: str, full: str, thoughts: str) -> str | None:
    """Return the answer behind a prompt that opens thoughts which the template leaves out of a finished turn.

    The answer then begins with the thoughts, or closes them at once if the row has none.
    """
    openings = list(_THOUGHT_OPENING.finditer(prompt, len(base)))
    if not openings:
        return None
    opening = openings[-1]
    head = prompt[: opening.start()]
    if full.startswith(head):
        content = full[len(head) :]
    elif full.startswith(head.rstrip()):
        content = full[len(head.rstrip()) :]
    else:
        return None
    close = _THOUGHT_MARKS[opening.group()]
    space = prompt[opening.end() :]
    if close in space:
        return None if thoughts else content
    # The template's own empty thought, but for the white space: the prompt has opened it already.
    content = content.removeprefix(opening.group())
    if content.lstrip().startswith(close):
        return thoughts + content.lstrip()
    # With the white space that the opening has, as in `<think>\n\n</think>\n\n`, the form of an empty thought.
    return f"{thoughts}{space}{close}\n\n{content.lstrip()}"


def _follow_all_words(prompt: str, full: str) -> str | None:
    """Return what stands behind the prompt if that differs in white space alone."""
    characters = iter("".join(prompt.split()))
    wanted_character = next(characters, None)
    for place, character in enumerate(full):
        if wanted_character is None:
            return full[place:].lstrip()
        if character.isspace():
            continue
        if character != wanted_character:
            return None
        wanted_character = next(characters, None)
    return None


def describe_error(error: Exception) -> str:
    """Return what a template raised, in a line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]


def close_thoughts(answer: str, thoughts: str) -> int:
    """Return the place in an answer where its thoughts are closed, 0 if they are not in it."""
    place = answer.find(thoughts)
    if place < 0:
        return 0
    end = place + len(thoughts)
    closings = re.compile(rf"\s*(?:{'|'.join(map(re.escape, _THOUGHT_MARKS.values()))})\s*")
    closing = closings.match(answer, end)
    return closing.end() if closing else end
