"""What a chat template can say, found by trying it with words that no conversation has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trainer.engine.chat_template.jinja import RENDER_ERRORS, Rendering, TemplateRunner, read_arguments

ArgumentForm = Literal["mapping", "text"]
IdForm = Literal["own", "nine", "numbered"]
"""A call's id as the row has it, nine letters and digits as Mistral's want it, or `functions.NAME:N` as Kimi's."""
ThoughtForm = Literal["field", "inline", "opening", "none"]
"""Thoughts by the template's own field, as `<think>` in the content, behind a prompt that opens them, or nowhere."""


@dataclass(frozen=True)
class Abilities:
    """What a template renders. What it cannot say is written into texts instead, see `messages`."""

    system: bool
    more_systems: bool
    late_systems: bool
    repeated_users: bool
    calls: bool
    argument_form: ArgumentForm
    id_form: IdForm
    text_beside_call: bool
    parallel_calls: bool
    results: bool
    tools: bool
    names: bool
    thoughts: ThoughtForm
    thought_tags: bool
    """Whether `<think>` in a content stays there while its answer is the newest."""

    def with_calls_as_text(self) -> Abilities:
        """Return the same without calls, results and tools of the template's own."""
        return replace(self, calls=False, results=False, tools=False)

    def with_all_as_text(self) -> Abilities:
        """Return what every template can say: user and assistant in turns."""
        return replace(
            self.with_calls_as_text(), system=False, more_systems=False, late_systems=False, repeated_users=False
        )


def make_word(number: int) -> str:
    """Return a word for a place in a conversation; none is a part of another."""
    return f"burnish{number:03}probe"


_ONE, _TWO, _THREE, _FOUR = (make_word(number) for number in range(900, 904))
_OWN_ID, _NINE_ID = "call_8wV3kTzLq0nR5yXb2JdFh7Pc", "call00001"
_USER = {"role": "user", "content": "a"}
_ANSWER = {"role": "assistant", "content": "b"}
_TOOL = {
    "type": "function",
    "function": {"name": _ONE, "description": _TWO, "parameters": {"type": "object", "properties": {}}},
}


def probe_abilities(runner: TemplateRunner) -> Abilities:
    """Try the template. Never raises: what fails is what the template cannot do."""
    probe = _Probe(runner)
    calls, argument_form, id_form = probe.find_call_form()
    return Abilities(
        system=probe.renders([_system(_ONE), _USER], _ONE),
        more_systems=probe.renders([_system(_ONE), _system(_TWO), _USER], _ONE, _TWO),
        late_systems=probe.renders([_USER, _ANSWER, _system(_ONE), {**_USER, "content": _TWO}], _ONE, _TWO)
        and probe.renders([{**_USER, "content": _TWO}, _system(_ONE)], _TWO, _ONE, in_order=True),
        repeated_users=probe.renders([{**_USER, "content": _ONE}, {**_USER, "content": _TWO}], _ONE, _TWO),
        calls=calls,
        argument_form=argument_form,
        id_form=id_form,
        text_beside_call=calls and probe.renders_calls(_THREE, 1, _ONE, _THREE),
        parallel_calls=calls and probe.renders_calls("", 2, f"{_ONE}0", f"{_ONE}1", "valuea0", "valuea1"),
        results=calls and probe.renders_results(),
        # Through the template only if calls are too: schemas in one form ask for calls in the same.
        tools=calls and probe.renders([_USER], _ONE, tools=[_TOOL]),
        names=probe.renders([{**_USER, "name": _ONE}], _ONE),
        thoughts=probe.find_thought_form(),
        thought_tags=probe.keeps_thought_tags(),
    )


class _Probe:
    def __init__(self, runner: TemplateRunner) -> None:
        self._runner = runner
        self._argument_form: ArgumentForm = "mapping"
        self._id_form: IdForm = "own"

    def renders(
        self,
        messages: Sequence[Rendering],
        *words: str,
        tools: list[dict[str, Any]] | None = None,
        in_order: bool = False,
    ) -> bool:
        """Return whether all words are in the rendering of a conversation."""
        text = self._render(messages, tools, prompt=messages[-1]["role"] != "assistant")
        if text is None:
            return False
        places = [text.find(word) for word in words]
        return min(places) >= 0 and (not in_order or places == sorted(places))

    def find_call_form(self) -> tuple[bool, ArgumentForm, IdForm]:
        """Return whether calls are rendered, and with arguments and ids in which form."""
        forms: list[tuple[ArgumentForm, IdForm]] = [
            (argument_form, id_form) for id_form in ("own", "nine", "numbered") for argument_form in ("mapping", "text")
        ]
        # As the JSON that it is, before a template that iterates over the arguments or prints Python's form of them.
        for words in ((f'{{"valuea0": "{_TWO}"}}',), ("valuea0", _TWO)):
            for self._argument_form, self._id_form in forms:
                if self.renders_calls("", 1, _ONE, *words):
                    return True, self._argument_form, self._id_form
        return False, "mapping", "own"

    def renders_calls(self, content: str, count: int, *words: str) -> bool:
        """Return whether the words are in the rendering of so many calls beside a text."""
        return self.renders([_USER, self._make_call(content, count)], *words)

    def renders_results(self) -> bool:
        """Return whether the results of one call are rendered."""
        call = self._make_call("", 1)
        result = {"role": "tool", "content": _FOUR, "tool_call_id": call["tool_calls"][0]["id"], "name": f"{_ONE}0"}
        return self.renders([_USER, call, result], _FOUR)

    def find_thought_form(self) -> ThoughtForm:
        """Return how the thoughts of the newest answer are rendered."""
        message = {"role": "assistant", "content": _TWO, "reasoning_content": _ONE, "thinking": _ONE}
        prompt = self._render([_USER], None, prompt=True) or ""
        if self.renders([_USER, message], _ONE, _TWO):
            # Behind a prompt that has closed them already, there is no place for thoughts.
            text = self._render([_USER, message], None, prompt=False) or ""
            return "field" if text.startswith(prompt) or "</" not in prompt[-24:] else "none"
        if prompt.rstrip().endswith("<think>"):
            return "opening"
        return "inline" if self.keeps_thought_tags() else "none"

    def keeps_thought_tags(self) -> bool:
        """Return whether thoughts between tags in the content are rendered as they are."""
        message = {"role": "assistant", "content": f"<think>\n{_ONE}\n</think>\n\n{_TWO}"}
        text = self._render([_USER, message], None, prompt=False) or ""
        prompt = self._render([_USER], None, prompt=True) or ""
        return text.startswith(prompt) and all(word in text for word in (_ONE, "</think>", _TWO))

    def _make_call(self, content: str, count: int) -> Rendering:
        calls: list[dict[str, Any]] = []
        for number in range(count):
            text = f'{{"valuea{number}": "{_TWO}"}}'
            ids = {
                "own": f"{_OWN_ID}{number}",
                "nine": f"{_NINE_ID[:-1]}{number}",
                "numbered": f"functions.{_ONE}{number}:{number}",
            }
            function = {
                "name": f"{_ONE}{number}",
                "arguments": read_arguments(text) if self._argument_form == "mapping" else text,
            }
            calls.append({"id": ids[self._id_form], "type": "function", "function": function})
        return {"role": "assistant", "content": content, "tool_calls": calls}

    def _render(self, messages: Sequence[Rendering], tools: list[dict[str, Any]] | None, *, prompt: bool) -> str | None:
        try:
            return self._runner.run_template(messages, tools, prompt=prompt)
        except RENDER_ERRORS:
            return None


def _system(text: str) -> Rendering:
    return {"role": "system", "content": text}
