"""Reading chat rows: OpenAI's supervised format, one JSON object a line, every problem named with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.errors import TrainerError

SHOWN_PROBLEMS = 20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)
    type: Literal["text"]
    text: str


class FunctionCall(BaseModel):
    """A call's function: its name and its arguments as the JSON text that the model is to write."""

    model_config = ConfigDict(frozen=True)
    name: str = Field(min_length=1)
    arguments: str = "{}"

    def parsed(self) -> Any:
        """Return the arguments as JSON values, or the text itself where it is not JSON."""
        try:
            return json.loads(self.arguments)
        except json.JSONDecodeError:
            return self.arguments


class ToolCall(BaseModel):
    """One tool call of an assistant's message."""

    model_config = ConfigDict(frozen=True)
    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(BaseModel):
    """One message of a conversation. `weight: 0` keeps an assistant's message out of the loss."""

    model_config = ConfigDict(frozen=True)
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[_Part, ...] | None = None
    name: str | None = None
    weight: Literal[0, 1] | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _something_to_say(self) -> Message:
        if self.content is None and not self.tool_calls:
            raise ValueError("content may be null only in an assistant's message with tool_calls")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant's message may have tool_calls")
        return self

    @property
    def text(self) -> str:
        """The content as one string: text parts are joined, null is empty."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)

    @property
    def trained(self) -> bool:
        """Whether the message's tokens are in the loss."""
        return self.role == "assistant" and self.weight != 0


class ChatRow(BaseModel):
    """One training example. `line` is its place in the file, from 1."""

    model_config = ConfigDict(frozen=True)
    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[dict[str, Any], ...] | None = None
    parallel_tool_calls: bool | None = None
    line: int = 0

    @model_validator(mode="after")
    def _has_an_assistant(self) -> ChatRow:
        if not any(message.role == "assistant" for message in self.messages):
            raise ValueError("messages need at least one message of the role assistant")
        return self


def read_rows(path: Path, *, filename: str, param: str) -> list[ChatRow]:
    """Read a JSONL file of chat rows; blank lines are skipped.

    Raises TrainerError (`invalid_training_file` or `invalid_validation_file`, after `param`) with the first
    twenty problems, each with its line.
    """
    rows: list[ChatRow] = []
    problems: list[str] = []
    code = f"invalid_{param}"
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    _read_line(line, number, rows, problems)
    except FileNotFoundError as error:
        raise TrainerError(code, f"The file {filename} is missing from the work folder.", param=param) from error
    except UnicodeDecodeError as error:
        raise TrainerError(code, f"The file {filename} is not UTF-8: {error.reason}.", param=param) from error
    if problems:
        raise TrainerError(code, _summary(filename, problems), param=param)
    return rows


def _read_line(line: str, number: int, rows: list[ChatRow], problems: list[str]) -> None:
    try:
        row = ChatRow.model_validate_json(line)
    except ValidationError as error:
        problems.append(f"line {number}: {_reason(error)}")
    else:
        rows.append(row.model_copy(update={"line": number}))


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def _summary(filename: str, problems: list[str]) -> str:
    shown = "; ".join(problems[:SHOWN_PROBLEMS])
    rest = len(problems) - SHOWN_PROBLEMS
    more = f"; and {rest} more" if rest > 0 else ""
    return f"{filename} has {len(problems)} line(s) that are not chat rows: {shown}{more}."
