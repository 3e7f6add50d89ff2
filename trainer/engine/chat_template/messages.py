"""A row's messages in the form that a template takes, and in texts what the template cannot say.

Many templates know neither tools nor a developer role, drop a later system message or refuse two turns of one speaker.
What they cannot say is written into texts in the Hermes form that open models share: tools as JSON in the system
message, calls as `<tool_call>\\n{json}\\n</tool_call>` in the assistant's message, results as
`<tool_response>\\n…\\n</tool_response>` in a user's message.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.contract.rows import Message, ToolCall
from trainer.engine.chat_template.abilities import Abilities, IdForm
from trainer.engine.chat_template.control_words import TextMarks
from trainer.engine.chat_template.jinja import Rendering, read_arguments

Tools = list[dict[str, Any]]
Note = Literal["system", "calls", "results", "tools", "names", "thoughts", "merged", "spaces"]

_TOOLS_PREAMBLE = (
    "You may call functions. Their signatures are within <tools></tools>:\n<tools>\n{tools}\n</tools>\n"
    "For each call, answer with a JSON object with the function's name and arguments within <tool_call></tool_call>."
)
_NINE = re.compile(r"[A-Za-z0-9]{9}")
_THOUGHTS = re.compile(r"\s*<think>\s*(.*?)\s*</think>\s*(.*)", re.DOTALL)
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass
class Arrangement:
    """A conversation in a template's form.

    `places` has for each message of the assistant, by its number in the row, its place in `messages`; `answers` has
    those messages, by place, that look different while they are the newest: with their thoughts. `notes` says what was
    written otherwise than the template's own way, or left out.
    """

    messages: list[Rendering] = field(default_factory=list[Rendering])
    tools: Tools | None = None
    places: dict[int, int] = field(default_factory=dict[int, int])
    answers: dict[int, Rendering] = field(default_factory=dict[int, Rendering])
    notes: set[Note] = field(default_factory=set[Note])


def arrange_messages(
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] | None,
    abilities: Abilities,
    marks: TextMarks,
    *,
    as_text: int | None = None,
) -> Arrangement:
    """Bring a conversation into the form of a template with these abilities.

    `as_text` is the number of a message whose calls are written as text although the template has calls.
    """
    arrangement = Arrangement()
    arranger = _Arranger(arrangement, abilities, marks, as_text)
    for number, message in enumerate(messages):
        arranger.add_message(number, message)
    marked_tools = [_mark_values(tool, marks) for tool in tools or ()]
    if marked_tools and abilities.tools:
        arrangement.tools = marked_tools
    elif marked_tools:
        # Characters as they are: escaped, Chinese text would be digits to the model.
        listing = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in marked_tools)
        arranger.add_to_system(_TOOLS_PREAMBLE.format(tools=listing))
        arrangement.notes.add("tools")
    arranger.move_systems()
    if not abilities.repeated_users:
        arranger.merge_users()
    arranger.finish_places()
    return arrangement


class _Arranger:
    def __init__(self, arrangement: Arrangement, abilities: Abilities, marks: TextMarks, as_text: int | None) -> None:
        self._as_text = as_text
        self._arrangement = arrangement
        self._abilities = abilities
        self._marks = marks
        self._entries: list[tuple[int | None, Rendering]] = []
        """Each message with the number that it has in the row if it is the assistant's."""
        self._answers: dict[int, Rendering] = {}
        self._calls: dict[str, tuple[str, str, bool]] = {}
        """Of each call by its id in the row: the id in the rendering, the function, and whether it became text."""

    def add_message(self, number: int, message: Message) -> None:
        if message.role == "assistant":
            entry = self._render_assistant(number, message)
        elif message.role == "tool":
            entry = self._render_result(message)
        else:
            # OpenAI's newer name for the system role, which open models' templates do not know.
            role = "system" if message.role == "developer" else message.role
            entry: Rendering = {"role": role, "content": self._marks.mark_text(message.text)}
        if message.name and entry["role"] == message.role and message.role in ("user", "assistant", "system"):
            if self._abilities.names:
                entry["name"] = self._marks.mark_text(message.name)
            else:
                self._arrangement.notes.add("names")
        self._entries.append((number if message.role == "assistant" else None, entry))

    def add_to_system(self, text: str) -> None:
        """Append to the leading system message, or make one."""
        first = self._entries[0][1]
        if first["role"] == "system":
            self._entries[0] = (None, {**first, "content": f"{first['content']}\n\n{text}"})
        else:
            self._entries.insert(0, (None, {"role": "system", "content": text}))

    def move_systems(self) -> None:
        """Move system texts that the template does not render to where it does."""
        entries: list[tuple[int | None, Rendering]] = []
        waiting: list[str] = []
        leading = 0
        for number, entry in self._entries:
            role = entry["role"]
            if role == "system" and not self._keeps_system(entries, leading):
                self._arrangement.notes.add("system")
                if leading and len(entries) == leading:
                    # Two at the front: one message, as the template has room for one.
                    last = entries[-1][1]
                    entries[-1] = (None, {**last, "content": f"{last['content']}\n\n{entry['content']}"})
                else:
                    waiting.append(entry["content"])
                continue
            if role == "user" and waiting:
                entry = {**entry, "content": "\n\n".join([*waiting, entry["content"]])}
                waiting = []
            elif role != "user" and waiting:
                _place_before_answer(entries, waiting)
                waiting = []
            leading += role == "system" and len(entries) == leading
            entries.append((number, entry))
        if waiting:
            _place_before_answer(entries, waiting)
        self._entries = entries

    def merge_users(self) -> None:
        """Write neighbouring turns of the user as one, for templates whose turns alternate."""
        entries: list[tuple[int | None, Rendering]] = []
        for number, entry in self._entries:
            if entries and entry["role"] == "user" == entries[-1][1]["role"]:
                last = entries[-1][1]
                entries[-1] = (None, {**last, "content": f"{last['content']}\n\n{entry['content']}"})
                self._arrangement.notes.add("merged")
            else:
                entries.append((number, entry))
        self._entries = entries

    def finish_places(self) -> None:
        for place, (number, entry) in enumerate(self._entries):
            self._arrangement.messages.append(entry)
            if number is not None:
                self._arrangement.places[number] = place
                if number in self._answers:
                    self._arrangement.answers[place] = {**entry, **self._answers[number]}

    def _keeps_system(self, entries: Sequence[object], leading: int) -> bool:
        if not entries:
            return self._abilities.system
        return self._abilities.more_systems if len(entries) == leading else self._abilities.late_systems

    def _render_assistant(self, number: int, message: Message) -> Rendering:
        if not self._abilities.thought_tags:
            message = take_thoughts_out(message)
        text = self._marks.mark_text(message.text, by_assistant=True)
        calls = message.tool_calls or ()
        entry: Rendering = {"role": "assistant", "content": text}
        as_text = bool(calls) and (number == self._as_text or not self._renders_calls(message))
        if as_text:
            texts = [text] if text else []
            entry["content"] = "\n".join(texts + [self._write_call(call) for call in calls])
            self._arrangement.notes.add("calls")
        names = [self._add_call(call, as_text=as_text) for call in calls]
        if calls and not as_text:
            entry["tool_calls"] = [
                {"id": name, "type": "function", "function": self._render_function(call)}
                for name, call in zip(names, calls, strict=True)
            ]
        if message.reasoning_content:
            self._add_thoughts(number, entry, self._marks.mark_text(message.reasoning_content, by_assistant=True))
        return entry

    def _add_thoughts(self, number: int, entry: Rendering, thoughts: str) -> None:
        match self._abilities.thoughts:
            case "field":
                # Both names that templates read, as transformers fills them in.
                entry |= {"reasoning_content": thoughts, "thinking": thoughts}
            case "inline" if not entry.get("tool_calls") or self._abilities.text_beside_call:
                # Earlier thoughts are not written: a chat's history comes back without them.
                self._answers[number] = {"content": f"<think>\n{thoughts}\n</think>\n\n{entry['content']}"}
            case "opening":
                self._answers[number] = {"thoughts": thoughts}
            case _:
                self._arrangement.notes.add("thoughts")

    def _render_result(self, message: Message) -> Rendering:
        text = self._marks.mark_text(message.text)
        name, function, as_text = self._calls.get(message.tool_call_id or "", (message.tool_call_id or "", "", False))
        if as_text or not self._abilities.results:
            self._arrangement.notes.add("results")
            return {"role": "user", "content": f"<tool_response>\n{text}\n</tool_response>"}
        entry: Rendering = {"role": "tool", "content": text, "tool_call_id": name}
        if message.name or function:
            entry["name"] = message.name or function
        return entry

    def _renders_calls(self, message: Message) -> bool:
        abilities, calls = self._abilities, message.tool_calls or ()
        if not abilities.calls or (message.text.strip() and not abilities.text_beside_call):
            return False
        return len(calls) == 1 or abilities.parallel_calls

    def _add_call(self, call: ToolCall, *, as_text: bool) -> str:
        count = len(self._calls)
        own = call.id or f"call{count:05}"
        name = rewrite_id(own, self._abilities.id_form, call.function.name, count)
        self._calls[own] = (name, call.function.name, as_text)
        return name

    def _render_function(self, call: ToolCall) -> dict[str, Any]:
        text = self._marks.mark_text(call.function.arguments, by_assistant=True)
        arguments = read_arguments(text) if self._abilities.argument_form == "mapping" else text
        return {"name": call.function.name, "arguments": arguments}

    def _write_call(self, call: ToolCall) -> str:
        text = self._marks.mark_text(call.function.arguments, by_assistant=True)
        arguments = text if not isinstance(read_arguments(text), str) else json.dumps(text, ensure_ascii=False)
        name = json.dumps(call.function.name, ensure_ascii=False)
        return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'


def take_thoughts_out(message: Message) -> Message:
    """Return a message with thoughts in its content, between tags at the front, as one with a field for them."""
    match = _THOUGHTS.fullmatch(message.text) if "</think>" in message.text else None
    if match is None or message.reasoning_content:
        return message
    return message.model_copy(update={"reasoning_content": match[1] or None, "content": match[2]})


def rewrite_id(own: str, form: IdForm, function: str, count: int) -> str:
    """Return a call's id in the form that a template accepts; `count` is the number of calls before it."""
    if form == "numbered":
        return f"functions.{function}:{count}"
    if form == "own" or _NINE.fullmatch(own):
        return own
    digest = int.from_bytes(hashlib.sha256(own.encode()).digest()[:8], "big")
    return "".join(_LETTERS[digest // 62**power % 62] for power in range(9))


def _place_before_answer(entries: list[tuple[int | None, Rendering]], waiting: Sequence[str]) -> None:
    """Put system texts behind the user's newest words, or before all if the user has texts nothing."""
    text = "\n\n".join(waiting)
    if entries and entries[-1][1]["role"] == "user":
        last = entries[-1][1]
        entries[-1] = (None, {**last, "content": f"{last['content']}\n\n{text}"})
    else:
        entries.append((None, {"role": "user", "content": text}))


def _mark_values(value: Any, marks: TextMarks) -> Any:
    if isinstance(value, str):
        return marks.mark_text(value)
    if isinstance(value, dict):
        return {key: _mark_values(item, marks) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple)):
        return [_mark_values(item, marks) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value
