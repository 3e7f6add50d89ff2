"""The messages to a model that grades: OpenAI's, with text alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import Field, field_validator

from trainer.frozen import Exact
from trainer.graders.base import Failure, Scene, Template
from trainer.graders.templates import MAX_FILLED, fill_template

_OTHERS = {"input_image": "images", "input_audio": "audio"}


class TextPart(Exact):
    """`{"type": "input_text", "text": …}`, or `output_text`."""

    type: Literal["input_text", "output_text"]
    text: Template
    prompt_cache_breakpoint: dict[str, Any] | None = None
    """Known to OpenAI's clients; changes nothing here."""


Content = Template | TextPart | Annotated[list[Template | TextPart], Field(min_length=1, max_length=64)]


class InputMessage(Exact):
    """One message; its texts may have `{{…}}`."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    type: Literal["message"] | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _text_alone(cls, value: Any) -> Any:
        for part in cast("list[Any]", value if isinstance(value, list) else [value]):
            kind = cast("dict[str, Any]", part).get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind in _OTHERS:
                raise ValueError(f"{_OTHERS[kind]} cannot be graded, as no model of this service reads them: use text")
        return cast("Any", value)

    def iter_texts(self) -> Iterator[str]:
        """Yield the message's texts."""
        for part in self.content if isinstance(self.content, list) else [self.content]:
            yield part if isinstance(part, str) else part.text

    def fill_texts(self, scene: Scene) -> dict[str, str]:
        """Return the message for a chat, its texts joined. Raises Failure."""
        content = "\n".join(fill_template(text, scene) for text in self.iter_texts())
        # An answer that is JSON may have "\\ud800", half of a character that no chat can carry.
        return {"role": self.role, "content": content.encode("utf-8", "replace").decode()}


Input = Annotated[list[InputMessage], Field(min_length=1, max_length=64)]


def fill_messages(messages: Sequence[InputMessage], scene: Scene) -> list[dict[str, str]]:
    """Return the messages of one question. Raises Failure, also if they are too long together."""
    filled_messages: list[dict[str, str]] = []
    size = 0
    for message in messages:
        filled_messages.append(message.fill_texts(scene))
        size += len(filled_messages[-1]["content"])
        if size > MAX_FILLED:
            raise Failure("truncated_observation_error", f"the filled messages have more than {MAX_FILLED} characters")
    return filled_messages
