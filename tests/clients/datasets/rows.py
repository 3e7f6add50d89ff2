"""Rows and their parts for tests, in several scripts."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

SYSTEM = {"role": "system", "content": "简洁地回答。"}
USER = {"role": "user", "content": "ما عاصمة فرنسا؟"}
GOOD = {"role": "assistant", "content": "باريس 😀"}
BAD = {"role": "assistant", "content": "里昂。"}
INPUT: Row = {"messages": [SYSTEM, USER]}


def pair(**changes: object) -> Row:
    return {"input": INPUT, "preferred_output": [GOOD], "non_preferred_output": [BAD], **changes}


def without(row: Row, *keys: str) -> Row:
    return {key: value for key, value in row.items() if key not in keys}


def ranked(*ranks: object, scores: tuple[object, ...] = ()) -> Row:
    responses: list[Row] = [
        {"message": {"role": "assistant", "content": f"回答 {index}"}, "rank": rank} for index, rank in enumerate(ranks)
    ]
    for response, score in zip(responses, scores, strict=False):
        if score is not None:
            response["score"] = score
    return {"input": INPUT, "responses": responses}


def prompt(*messages: object, **more: object) -> Row:
    return {"input": {"messages": list(messages)}, **more}


def labelled(**changes: object) -> Row:
    return {"input": INPUT, "output": [GOOD], "label": True, **changes}
