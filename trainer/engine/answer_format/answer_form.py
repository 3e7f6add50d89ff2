"""Which form a base's answers have: found by reading back what its chat template writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from trainer.engine.answer_format.forms import CALL_FORMS, HERMES, MESSAGE_FORMS, THOUGHT_MARKS
from trainer.engine.answer_format.grammar import CallForm, MessageForm, ThoughtMarks
from trainer.engine.answer_format.marked_parser import MarkedParser
from trainer.engine.answer_format.message_parser import MessageParser
from trainer.engine.answer_format.parts import AnswerContent, AnswerParser, CallText, OfferedTools
from trainer.engine.answer_format.token_marks import TokenMarks

_PROBE = "burnishprobe"
_THOUGHT = "burnishthought"
_ARGUMENTS = {"a": "b"}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "description": "a"}}, "required": ["a"]}
_TOOL = {"type": "function", "function": {"name": _PROBE, "description": "a", "parameters": _SCHEMA}}
_USER = {"role": "user", "content": "a"}
_NO_MARKS = TokenMarks({})


@dataclass(frozen=True)
class AnswerForm:
    """How a base writes thoughts and calls: between marks, or as messages."""

    thoughts: ThoughtMarks | None = None
    calls: tuple[CallForm, ...] = (HERMES,)
    messages: MessageForm | None = None

    @classmethod
    def detect(cls, tokenizer: PreTrainedTokenizerBase) -> AnswerForm:
        """Find the form in which the chat template writes. Calls in the Hermes form are read from every base.

        It is the form of the calls in training rows for templates without one.
        """
        probe = _TemplateProbe(tokenizer)
        messages = probe.find_messages()
        if messages is not None:
            return cls(messages=messages)
        native = probe.find_calls()
        calls = (HERMES,) if native in (None, HERMES) else (native, HERMES)
        if native is not None and any(one.opening == "<tool_call>" for one in native.calls):
            calls = (native,)
        return cls(probe.find_thoughts(), calls)

    @property
    def marks(self) -> tuple[str, ...]:
        """All marks of the form."""
        if self.messages is not None:
            return self.messages.marks
        thought_marks = () if self.thoughts is None else (self.thoughts.opening, self.thoughts.closing)
        return (*thought_marks, *(mark for form in self.calls for mark in form.marks))

    def open_parser(self, prompt_end: str, tools: OfferedTools, token_marks: TokenMarks = _NO_MARKS) -> AnswerParser:
        """Return a parser of an answer to a prompt, which may have opened the thought or the header."""
        if self.messages is not None:
            header = prompt_end.rpartition(self.messages.opening + self.messages.role)
            return MessageParser(self.messages, tools, token_marks, header=header[2] if header[1] else "")
        in_thought = self.thoughts is not None and prompt_end.rstrip().endswith(self.thoughts.opening.rstrip())
        return MarkedParser(self.thoughts, self.calls, tools, token_marks, in_thought=in_thought)

    def read_text(self, text: str, tools: OfferedTools, *, prompt_end: str = "") -> AnswerContent:
        """Read a whole answer that is text, its special tokens as they are written."""
        parser = self.open_parser(prompt_end, tools)
        return AnswerContent.from_parts([*parser.add_text(text), *parser.finish_text()])


class _TemplateProbe:
    """Renders a call and a thought, and looks which form reads them back."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._prompt = self._render([_USER], prompt=True) or ""
        self._question = self._render([_USER]) or ""
        said = self._render([_USER, {"role": "assistant", "content": _PROBE}]) or ""
        self._ending = said.rpartition(_PROBE)[2]

    def find_messages(self) -> MessageForm | None:
        """Return the form of messages that reads a call or a thought back."""
        for messages in MESSAGE_FORMS:
            form = AnswerForm(messages=messages)
            if messages.opening + messages.role in self._prompt and (
                self._reads_call(form) or any(_THOUGHT in self._read(form, text).reasoning for text in self._thoughts())
            ):
                return messages
        return None

    def find_calls(self) -> CallForm | None:
        """Return the form that reads a call back."""
        return next((form for form in CALL_FORMS if self._reads_call(AnswerForm(calls=(form,)))), None)

    def find_thoughts(self) -> ThoughtMarks | None:
        """Return the marks around a thought, or those that the template or the prompt names: many drop thoughts."""
        texts = [*self._thoughts(), self._prompt]
        for marks in THOUGHT_MARKS:
            pattern = rf"{re.escape(marks.opening)}\s*{_THOUGHT}\s*{re.escape(marks.closing)}"
            if any(re.search(pattern, text) for text in texts):
                return marks
        source = self._tokenizer.chat_template
        for marks in THOUGHT_MARKS:
            opening = marks.stripped_by or marks.opening
            if isinstance(source, str) and opening in source and marks.closing in source:
                return marks
            if self._prompt.rstrip().endswith(marks.opening.rstrip()):
                return marks
        return None

    def _reads_call(self, form: AnswerForm) -> bool:
        return any(self._is_probe(self._read(form, text).calls) for text in self._calls())

    def _is_probe(self, calls: tuple[CallText, ...]) -> bool:
        return [(call.name, json.loads(call.arguments)) for call in calls] == [(_PROBE, _ARGUMENTS)]

    def _read(self, form: AnswerForm, text: str) -> AnswerContent:
        answer = text.removeprefix(self._prompt if text.startswith(self._prompt) else self._question)
        return form.read_text(
            answer.removesuffix(self._ending), OfferedTools.from_wire([_TOOL]), prompt_end=self._prompt
        )

    def _calls(self) -> Iterator[str]:
        for arguments in (_ARGUMENTS, json.dumps(_ARGUMENTS)):
            function = {"name": _PROBE, "arguments": arguments}
            # Nine letters and digits: Mistral's templates refuse any other id.
            message = {"tool_calls": [{"id": "call00001", "type": "function", "function": function}]}
            for content in ("", None):
                text = self._render([_USER, {"role": "assistant", "content": content, **message}])
                if text is not None and _PROBE in text:
                    yield text

    def _thoughts(self) -> Iterator[str]:
        thought = {"reasoning_content": _THOUGHT, "thinking": _THOUGHT, "reasoning": _THOUGHT}
        call = {"id": "call00001", "type": "function", "function": {"name": _PROBE, "arguments": _ARGUMENTS}}
        for content, calls in ((_PROBE, {}), ("", {"tool_calls": [call]})):
            text = self._render([_USER, {"role": "assistant", "content": content, **thought, **calls}])
            if text is not None and _THOUGHT in text:
                yield text

    def _render(self, messages: list[dict[str, Any]], *, prompt: bool = False) -> str | None:
        # Templates of models that see pictures may take contents as parts alone.
        as_parts: list[dict[str, Any]] = [
            message | {"content": [{"type": "text", "text": message["content"]}] if message["content"] else []}
            for message in messages
        ]
        for conversation in (messages, as_parts):
            try:
                text = self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=prompt)
                return str(text)
            except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError):
                continue
        return None
