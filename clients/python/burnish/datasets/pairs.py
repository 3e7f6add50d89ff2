"""Rows of preference pairs: a prompt, a better output and a worse one.

`{"input": {"messages", "tools"?, "parallel_tool_calls"?}, "preferred_output": […], "non_preferred_output": […]}`,
or with the older names `preferred_completion` and `non_preferred_completion`.
"""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.messages import Conversation, unknown_keys
from burnish.datasets.turns import check_input, check_output, plain_input, plain_output, spoken_content

PREFERRED, NON_PREFERRED = "preferred_output", "non_preferred_output"
_OLDER = {PREFERRED: "preferred_completion", NON_PREFERRED: "non_preferred_completion"}
PAIR_KEYS = frozenset({PREFERRED, NON_PREFERRED, *_OLDER.values()})
_KEYS = frozenset({"input", PREFERRED, NON_PREFERRED})


class PairRows:
    """The `RowFormat` of preference pairs, for the method `name`."""

    plain_text = False

    def __init__(self, name: str) -> None:
        self.name = name

    def check_row(self, row: Row) -> list[str]:
        """Return what is wrong with a row; see `RowFormat.check_row`."""
        problems: list[str] = []
        prompt = check_input(row, problems)
        names = [_check_side(row, key, prompt, problems) for key in (PREFERRED, NON_PREFERRED)]
        better, worse = (row[name] if name else None for name in names)
        if better is not None and worse is not None and spoken_content(better) == spoken_content(worse):
            problems.append(f"{names[0]} and {names[1]}: are the same; a pair needs a better output and a worse one")
        problems.extend(unknown_keys("", {key: row[key] for key in row if key not in PAIR_KEYS}, _KEYS))
        return problems

    def count_plain_strings(self, row: Row, texts: list[str]) -> int:
        """Count the strings of a plain row with two different outputs; see `RowFormat.count_plain_strings`."""
        prompt = plain_input(row, texts)
        better = plain_output(row.get(PREFERRED), texts)
        worse = plain_output(row.get(NON_PREFERRED), texts)
        if not prompt or not better or not worse or len(row) != 3 or texts[-1].strip() == texts[-2].strip():
            return 0
        return prompt + better + worse + 2


def _check_side(row: Row, key: str, prompt: Conversation, problems: list[str]) -> str | None:
    """Return the name under which the row gives this output, None if the output is not good."""
    present_keys = [name for name in (key, _OLDER[key]) if row.get(name) is not None]
    if len(present_keys) == 1:
        return present_keys[0] if check_output(present_keys[0], row[present_keys[0]], prompt, problems) else None
    if present_keys:
        problems.append(f"{key}: is given twice, here and as the older {_OLDER[key]}; keep one")
    else:
        problems.append(f"{key}: is missing; a pair needs {PREFERRED} and {NON_PREFERRED}")
    return None
