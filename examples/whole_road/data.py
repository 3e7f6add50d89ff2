"""Rows for every stage: a small shop's catalogue, in English and Chinese.

What is learnt has a rule that people can check: a good answer names the shelf and is polite.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_GOODS = (
    ("green tea", "绿茶"),
    ("rice", "大米"),
    ("noodles", "面条"),
    ("soy sauce", "酱油"),
    ("apples", "苹果"),
    ("candles", "蜡烛"),
    ("soap", "肥皂"),
    ("batteries", "电池"),
    ("notebooks", "笔记本"),
    ("umbrellas", "雨伞"),
    ("honey", "蜂蜜"),
    ("salt", "食盐"),
    ("cups", "杯子"),
    ("towels", "毛巾"),
    ("pencils", "铅笔"),
    ("tofu", "豆腐"),
)
HELD_OUT = 4
"""The last goods are kept for validation."""


def write_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Write a training and a validation file for each kind of row; return their paths by the kind."""
    folder.mkdir(parents=True, exist_ok=True)
    seen, unseen = _GOODS[:-HELD_OUT], _GOODS[-HELD_OUT:]
    made: dict[str, tuple[Path, Path]] = {}
    for kind, rows in (
        ("chats", _chats),
        ("rankings", _rankings),
        ("preferences", _preferences),
        ("prompts", _prompts),
    ):
        paths = folder / f"{kind}.train.jsonl", folder / f"{kind}.validation.jsonl"
        for path, goods in zip(paths, (seen, unseen), strict=True):
            lines = (json.dumps(row, ensure_ascii=False) for row in rows(goods))
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        made[kind] = paths
    texts = folder / "text.train.txt", folder / "text.validation.txt"
    for path, goods in zip(texts, (seen, unseen), strict=True):
        path.write_text("".join(_text(goods)), encoding="utf-8")
    return made | {"text": texts}


def _text(goods: Iterable[tuple[str, str]]) -> Iterable[str]:
    for english, chinese in goods:
        shelf = _shelf(english)
        yield f"In the corner shop, the {english} are on shelf {shelf}. Who asks for {english} is shown the way.\n"
        yield f"在街角的小店里,{chinese}放在{shelf}号货架上。有人要买{chinese},店员就给他带路。\n"


def _questions(goods: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str, str, str]]:
    """Yield a question with a polite, a bare and a rude answer."""
    for english, chinese in goods:
        shelf = _shelf(english)
        yield (
            f"Where do I find {english}?",
            f"On shelf {shelf}, please follow me!",
            f"Shelf {shelf}.",
            "Look for it yourself.",
        )
        yield f"{chinese}在哪里?", f"在{shelf}号货架,请跟我来!", f"{shelf}号。", "自己找。"


def _chats(goods: Iterable[tuple[str, str]]) -> Iterable[dict[str, Any]]:
    for question, polite, bare, _ in _questions(goods):
        for answer in (polite, bare):
            yield {"messages": [_message("user", question), _message("assistant", answer)]}


def _rankings(goods: Iterable[tuple[str, str]]) -> Iterable[dict[str, Any]]:
    for question, *answers in _questions(goods):
        responses = [
            {"message": _message("assistant", text), "rank": rank} for rank, text in enumerate(answers, start=1)
        ]
        yield {"input": {"messages": [_message("user", question)]}, "responses": responses}


def _preferences(goods: Iterable[tuple[str, str]]) -> Iterable[dict[str, Any]]:
    for question, polite, bare, rude in _questions(goods):
        for worse in (bare, rude):
            yield {
                "input": {"messages": [_message("user", question)]},
                "preferred_output": [_message("assistant", polite)],
                "non_preferred_output": [_message("assistant", worse)],
            }


def _prompts(goods: Iterable[tuple[str, str]]) -> Iterable[dict[str, Any]]:
    for question, *_ in _questions(goods):
        yield {"input": {"messages": [_message("user", question)]}}


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _shelf(english: str) -> int:
    return 1 + sum(english.encode()) % 9
