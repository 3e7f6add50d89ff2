"""Rendering chat rows with the base's own chat template, and filling in what that template cannot say.

Many small models' templates know neither tools nor a developer role, and fail on a null content. What a template
handles is found by trying it; the rest is written into the content in the Hermes form that open models share:
tools as JSON in the system message, calls as `<tool_call>\\n{json}\\n</tool_call>` in the assistant's message, results
as `<tool_response>\\n…\\n</tool_response>` in a user's message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from trainer.contract.rows import ChatRow, Message
from trainer.kit.errors import TrainerError

_PROBE = "burnishprobe"
_TOOL = {
    "type": "function",
    "function": {"name": _PROBE, "description": "", "parameters": {"type": "object", "properties": {}}},
}
# The id has nine letters and digits: Mistral's templates refuse any other form.
_CALL = {"id": "call00001", "type": "function", "function": {"name": _PROBE, "arguments": {}}}
_USER = {"role": "user", "content": "a"}

_TOOLS_PREAMBLE = (
    "You may call functions. Their signatures are within <tools></tools>:\n<tools>\n{tools}\n</tools>\n"
    "For each call, answer with a JSON object with the function's name and arguments within <tool_call></tool_call>."
)


class ChatTemplate:
    """The base's chat template together with the tokenizer that owns it.

    Raises TrainerError (`unsupported_chat_template`) if the tokenizer has no template or it cannot render a plain
    conversation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise _unsupported_template("the base model has no chat template")
        self._calls = self._renders_word([_USER, {"role": "assistant", "content": "", "tool_calls": [_CALL]}])
        # Through the template only if calls are too: schemas in one form ask for calls in the same.
        self._tools = self._calls and self._renders_word([_USER], tools=[_TOOL])
        self._results = self._calls and self._renders_word(
            [
                _USER,
                {"role": "assistant", "content": "", "tool_calls": [_CALL]},
                # The word twice: once, it is in the call's name, and would be found if the result were left out.
                {"role": "tool", "content": "r" + _PROBE * 2, "tool_call_id": "call00001", "name": "f"},
            ],
            _PROBE * 2,
        )
        self._system = self._renders_word([{"role": "system", "content": _PROBE}, _USER])
        self.end_of_turn = self._find_end_of_turn()

    def prepare_messages(self, row: ChatRow) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Return the row's messages in a form that this template renders, one for one, and the tools it takes."""
        messages = [self._prepare_message(message) for message in row.messages]
        tools = list(row.tools) if row.tools else None
        if tools and not self._tools:
            # Characters as they are: escaped, Chinese text would be digits to the model.
            listing = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
            _add_to_system(messages, _TOOLS_PREAMBLE.format(tools=listing))
            tools = None
        return messages if self._system else _without_system(messages), tools

    def render(
        self, messages: Sequence[dict[str, Any]], tools: list[dict[str, Any]] | None, *, prompt: bool = False
    ) -> str:
        """Return the conversation as text; `prompt` adds the opening of the assistant's next turn."""
        text = self.tokenizer.apply_chat_template(
            list(messages), tools=cast(Any, tools), tokenize=False, add_generation_prompt=prompt
        )
        assert isinstance(text, str)
        return text

    def _prepare_message(self, message: Message) -> dict[str, Any]:
        # OpenAI's newer name for the same role, which open models' templates do not know.
        role = "system" if message.role == "developer" else message.role
        if role == "tool" and not self._results:
            return {"role": "user", "content": f"<tool_response>\n{message.text}\n</tool_response>"}
        rendered: dict[str, Any] = {"role": role, "content": message.text}
        if message.name:
            rendered["name"] = message.name
        if message.tool_call_id:
            rendered["tool_call_id"] = message.tool_call_id
        if not message.tool_calls:
            return rendered
        calls = [
            {"name": call.function.name, "arguments": call.function.parse_arguments()} for call in message.tool_calls
        ]
        if self._calls:
            rendered["tool_calls"] = [
                {"id": call.id or f"call{index:05}", "type": "function", "function": function}
                for index, (call, function) in enumerate(zip(message.tool_calls, calls, strict=True))
            ]
        else:
            said = [message.text] if message.text else []
            rendered["content"] = "\n".join(said + [_hermes_call(call) for call in calls])
        return rendered

    def _renders_word(self, messages: list[dict[str, Any]], word: str = _PROBE, **kwargs: Any) -> bool:
        try:
            return word in self.tokenizer.apply_chat_template(messages, tokenize=False, **kwargs)
        except (TemplateError, TypeError, ValueError, KeyError):
            return False

    def _find_end_of_turn(self) -> str | None:
        """Return the special token that ends an assistant's turn, None if the template writes none."""
        try:
            text = self.render([_USER, {"role": "assistant", "content": _PROBE}], None)
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise _unsupported_template(
                f"the base model's chat template fails on a plain conversation ({error})"
            ) from error
        tail = text[text.rindex(_PROBE) + len(_PROBE) :]
        specials = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        # The first one behind the content; of two that begin at one place, the longer.
        found = [(tail.index(token), -len(token), token) for token in specials if token and token in tail]
        return min(found)[2] if found else None


def _hermes_call(call: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def _add_to_system(messages: list[dict[str, Any]], text: str) -> None:
    """Append to the leading system message, or make one. The list keeps one entry a message of the row otherwise."""
    if messages[0]["role"] == "system":
        messages[0] = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
    else:
        messages.insert(0, {"role": "system", "content": text})


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Move system text to the front of the next user message, for templates that refuse the system role."""
    moved: list[dict[str, Any]] = []
    waiting = ""
    for message in messages:
        if message["role"] == "system":
            waiting += message["content"] + "\n\n"
        elif message["role"] == "user" and waiting:
            moved.append({**message, "content": waiting + message["content"]})
            waiting = ""
        else:
            moved.append(message)
    return moved


def _unsupported_template(reason: str) -> TrainerError:
    return TrainerError(
        "unsupported_chat_template", f"Chat rows cannot be rendered: {reason}. Choose another model.", param="model"
    )
