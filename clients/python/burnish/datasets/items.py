"""Rows of reinforcement fine-tuning: a prompt, and whatever a grader may need about it.

`{"messages": [{role, content, name?, …}], "tools"?, "parallel_tool_calls"?, any other key}`; in a grader's templates
the key `answer` is `{{item.answer}}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from burnish.datasets.base import Row
from burnish.datasets.messages import check_options, plain_messages
from burnish.datasets.turns import check_prompt
from burnish.datasets.wording import quote_key

PROMPT_KEYS = frozenset({"messages", "tools", "parallel_tool_calls"})
_NOTHING = object()


class ItemRows:
    """The `RowFormat` of prompts with keys of their own; each of `needs` is the path of a value that a row must have.

    A path is a list of keys and, in lists, of places from 0. Those that are among `references` too may not be empty
    texts: every answer has an empty text in it.
    """

    name = "reinforcement"
    plain_text = False

    def __init__(
        self, needs: Sequence[Sequence[str | int]] = (), references: Sequence[Sequence[str | int]] = ()
    ) -> None:
        self._needs = needs
        self._references = references

    def check_row(self, row: Row) -> list[str]:
        """Return what is wrong with a row; see `RowFormat.check_row`."""
        problems: list[str] = []
        check_prompt("", row, problems, missing_message="is missing; a row needs a list of the prompt's messages")
        check_options("", row, problems)
        for path in self._needs:
            if problem := _path_problem(row, path, may_be_empty=path not in self._references):
                problems.append(problem)
        return problems

    def count_plain_strings(self, row: Row, texts: list[str]) -> int:
        """Count the strings of a plain row with texts in its other keys; see `RowFormat.count_plain_strings`."""
        strings, last = plain_messages(row.get("messages"), texts)
        if last != "user" or any(len(path) > 1 or path[0] not in row for path in self._needs):
            return 0
        if any(row[str(path[0])] == "" for path in self._references):
            return 0
        for key, value in row.items():
            if key == "messages":
                continue
            if type(value) is not str or key in PROMPT_KEYS:
                return 0
            texts += (key, value)
            strings += 2
        return strings + 1


def _path_problem(row: Row, path: Sequence[str | int], *, may_be_empty: bool) -> str | None:
    """Return what is missing of a path, or that its value is empty, named from the row's key on."""
    value: object = row
    place = ""
    for part in path:
        here = f"{place}[{part}]" if isinstance(part, int) else f"{place}.{quote_key(part)}".lstrip(".")
        value = _value_at(value, part)
        if value is _NOTHING:
            return f"{here}: is missing, and the grader asks for it"
        place = here
    if value == "" and not may_be_empty:
        return f"{place}: is empty, and the grader compares answers with it"
    return None


def _value_at(value: object, part: str | int) -> object:
    """Return what a value has at a key or a place, as the graders look it up."""
    if isinstance(value, dict):
        child = cast("dict[str, object]", value).get(str(part))
        return _NOTHING if child is None else child
    if isinstance(value, list) and str(part).isdecimal():
        items = cast("list[object]", value)
        return items[int(part)] if int(part) < len(items) else _NOTHING
    return _NOTHING
