"""What a model that grades meant: OpenAI's `{"result": …}`, or the value alone."""

from __future__ import annotations

import json
from typing import Any, cast

from trainer.graders.base import Failure, Reply, parse_json

_RESULT = "result"
_READ = 1 << 16
"""How much of the end of an answer is searched."""
_MOST_READ_AGAIN = 16 * _READ
"""Characters that are read in vain, in objects that do not end, before the search is given up."""
_ATTEMPT = 64
"""What an attempt costs at least, in characters."""


def parse_reply(reply: Reply, *, expected_result: str, text_counts: bool = False) -> Any:
    """Return the result in a model's answer: the whole text as JSON, or the last JSON object in it with `result`.

    With `text_counts` a text that is not JSON is the result itself. Raises Failure.
    """
    text = reply.text.strip()
    is_json, value = parse_json(text)
    if is_json:
        fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        return fields.get(_RESULT, cast("Any", value))
    results = [reply_object[_RESULT] for reply_object in _find_objects(text[-_READ:]) if _RESULT in reply_object]
    if results:
        return results[-1]
    if text_counts and text:
        return text
    why = "its tokens ran out before it had said " if reply.cut else "it has to say "
    raise Failure("model_grader_parse_error", f"the model answered {text[:80]!r}: {why}{expected_result}")


def _find_objects(text: str) -> list[dict[str, Any]]:
    """Return the outermost JSON objects of a text, in their order.

    Each `{` may begin one that is read to the text's end in vain, so what is read so is counted: without that, 64 KiB
    of openings take a second.
    """
    decoder, objects, place = json.JSONDecoder(), list[dict[str, Any]](), text.find("{")
    wasted_characters = 0
    while place >= 0 and wasted_characters < _MOST_READ_AGAIN:
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            end = place + 1
            wasted_characters += max(
                _ATTEMPT, (error.pos if isinstance(error, json.JSONDecodeError) else len(text)) - place
            )
        else:
            objects.append(value)
        place = text.find("{", end)
    return objects
