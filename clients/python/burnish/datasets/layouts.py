"""Files of text that are not JSON lines: what their first two lines give away, and what to do about it."""

from __future__ import annotations

import re

_FIELD = r'"?\w[\w .:/-]{0,60}"?'
_HEADER = re.compile(rf"{_FIELD}(?:([,;\t]){_FIELD})(?:\1{_FIELD})*")
_ROWS_IN_LIST = re.compile(r'\{\s*"(data|rows|train|training_data|examples|items|records|dataset|samples)"\s*:\s*\[')

_ARRAY = (
    "the file is a JSON array over several lines: write one row a line, without brackets around the rows; "
    "burnish data convert reads the file as it is"
)
_OBJECT = (
    "the file has JSON objects that are spread over several lines: write one object a line, as jq -c . FILE does, or "
    "put them into a JSON array for burnish data convert"
)
_TABLE = (
    "the file is a table ({kind}), not JSON lines: save it as JSON lines, in pandas with "
    'read_csv(…).to_json("rows.jsonl", orient="records", lines=True, force_ascii=False), and see burnish data convert'
)


def other_layout(first: bytes, second: bytes) -> str | None:
    """Say what a file is by its first two lines that are not blank, the first of which is not JSON; None: no idea."""
    start, following = (line.decode(errors="replace").strip() for line in (first, second))
    if start.startswith("["):
        return _ARRAY
    if start.startswith("{"):
        return _name_spread_object(start, following)
    header = _HEADER.fullmatch(start)
    if header is None or following.startswith(("{", "[")):
        return None
    return _TABLE.format(kind="TSV" if header[1] == "\t" else "CSV")


def name_list_of_rows(key: str) -> str:
    """Say what to do about a file that is one object with its rows in the list under `key`."""
    return (
        f'the file is one object with its rows in the list "{key}": write one row a line, as '
        f"jq -c '.{key}[]' FILE does"
    )


def _name_spread_object(start: str, following: str) -> str | None:
    # A row too few or one cut short ends in other characters; rows with commas between them begin with a brace.
    spread = start.endswith(("{", "[")) or (start.endswith(",") and following.startswith('"'))
    if not spread:
        return None
    in_list = _ROWS_IN_LIST.match(f"{start} {following}")
    return name_list_of_rows(in_list[1]) if in_list else _OBJECT
