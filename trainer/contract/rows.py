"""Rows of data files: one JSON object a line, one class a format."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

_OTHER_PARTS = {
    "image_url": "images",
    "input_image": "images",
    "input_audio": "audio",
    "video_url": "videos",
    "file": "files",
    "input_file": "files",
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)
    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_media(cls, value: Any) -> Any:
        # Before the fields, or the text that an image lacks would be asked for as well.
        kind = cast("dict[str, Any]", value).get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind in _OTHER_PARTS:
            raise ValueError(f"{_OTHER_PARTS[kind]} cannot be read: models here read text alone; send parts of text")
        return cast(Any, value)


class FunctionCall(BaseModel):
    """A call's function: its name and its arguments as the JSON text that the model is to write."""

    model_config = ConfigDict(frozen=True)
    name: str = Field(min_length=1)
    arguments: str = "{}"

    def parse_arguments(self) -> Any:
        """Return the arguments as JSON values, or the text itself if it is not JSON."""
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


def _whole_number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Message(BaseModel):
    """One message of a conversation. `weight: 0` keeps an assistant's message out of the loss."""

    model_config = ConfigDict(frozen=True)
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[_Part, ...] | None = None
    name: str | None = None
    weight: Annotated[Literal[0, 1] | None, BeforeValidator(_whole_number)] = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    """What an assistant's message thinks before it answers; templates decide how it is written."""

    @field_validator("weight", mode="before")
    @classmethod
    def _read_whole_number(cls, value: Any) -> Any:
        # Some JSON writers know one kind of number, so that 1 becomes 1.0.
        return int(value) if isinstance(value, float) and value.is_integer() else value

    @model_validator(mode="after")
    def _something_to_say(self) -> Message:
        if self.content is None and not self.tool_calls:
            raise ValueError("content may be null only in an assistant's message with tool_calls")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant's message may have tool_calls")
        if self.reasoning_content and self.role != "assistant":
            raise ValueError("only an assistant's message may have reasoning_content")
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


class _Row(BaseModel):
    """One training example. `line` is its place in the file, from 1."""

    model_config = ConfigDict(frozen=True)
    row_format: ClassVar[str]
    """The name of the format in `burnish.datasets.ROW_FORMATS`, which checks each row before it becomes an object."""
    line: int = 0


class ChatRow(_Row):
    """A conversation with assistant messages to imitate."""

    row_format: ClassVar[str] = "supervised"
    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[dict[str, Any], ...] | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _has_an_assistant(self) -> ChatRow:
        if not any(message.role == "assistant" for message in self.messages):
            raise ValueError("messages need at least one message of the role assistant")
        return self


class TextRow(_Row):
    """A document of pre-training."""

    row_format: ClassVar[str] = "pretraining"
    text: str = Field(min_length=1)


class Prompt(BaseModel):
    """A conversation up to the answer to write."""

    model_config = ConfigDict(frozen=True)
    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[dict[str, Any], ...] | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _ends_with_question(self) -> Prompt:
        if self.messages[-1].role == "assistant":
            raise ValueError("the prompt's last message is the assistant's: there would be nothing to answer")
        return self


class PreferenceRow(_Row):
    """A prompt with a better and a worse continuation, each of one message or of several turns."""

    row_format: ClassVar[str] = "dpo"
    input: Prompt
    chosen: tuple[Message, ...] = Field(
        min_length=1, validation_alias=AliasChoices("preferred_output", "preferred_completion")
    )
    rejected: tuple[Message, ...] = Field(
        min_length=1, validation_alias=AliasChoices("non_preferred_output", "non_preferred_completion")
    )

    @model_validator(mode="after")
    def _end_with_assistant(self) -> PreferenceRow:
        for name, output in (("preferred", self.chosen), ("non-preferred", self.rejected)):
            if output[-1].role != "assistant":
                raise ValueError(f"the {name} output must end with a message of the assistant")
        return self


class RankedResponse(BaseModel):
    """One response of a ranking; rank 1 is the best, equal ranks are ties, `score` is used for margins.

    A file has a response's only message as `message`, and a response of several turns as `messages`.
    """

    model_config = ConfigDict(frozen=True)
    messages: tuple[Message, ...] = Field(min_length=1)
    rank: int = Field(ge=1)
    score: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _wrap_message(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "message" not in value:
            return cast(Any, value)
        message = cast("dict[str, Any]", value)
        if "messages" in message:
            raise ValueError("a response has message or messages, not both")
        return {**{key: message[key] for key in message if key != "message"}, "messages": [message["message"]]}

    @model_validator(mode="after")
    def _ends_with_assistant(self) -> RankedResponse:
        if self.messages[-1].role != "assistant":
            raise ValueError(f"a response ends with a message of the assistant, not of the {self.messages[-1].role}")
        return self


class RankingRow(_Row):
    """A prompt with two or more ranked responses. The pairs of preference rows are read as rankings of two."""

    row_format: ClassVar[str] = "reward"
    input: Prompt
    responses: tuple[RankedResponse, ...] = Field(min_length=2, max_length=64)

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "responses" in value:
            return cast(Any, value)
        pair = PreferenceRow.model_validate(value)
        responses = [
            {"messages": [message.model_dump() for message in output], "rank": rank}
            for rank, output in enumerate((pair.chosen, pair.rejected), start=1)
        ]
        return {"input": pair.input.model_dump(), "responses": responses}


class PromptRow(_Row):
    """A prompt to sample answers for; programmatic rewards may compare them with `reference`."""

    row_format: ClassVar[str] = "ppo"
    input: Prompt
    reference: str | None = None


class ItemRow(PromptRow):
    """A prompt at the top of its row. `item` is the whole row, whatever keys it has: a grader may use them."""

    row_format: ClassVar[str] = "reinforcement"
    item: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _keep_whole_row(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        row = cast("dict[str, Any]", value)
        return {"input": {key: row[key] for key in Prompt.model_fields if key in row}, "item": row}


class LabelledRow(_Row):
    """A prompt with one answer that is wanted or not."""

    row_format: ClassVar[str] = "kto"
    input: Prompt
    output: tuple[Message, ...] = Field(min_length=1)
    label: bool


AnyRow = ChatRow | TextRow | PreferenceRow | RankingRow | PromptRow | LabelledRow
