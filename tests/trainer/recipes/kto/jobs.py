"""Labelled rows, for the tests of KTO."""

from __future__ import annotations

from typing import Any

from tests.trainer.recipes.dpo.jobs import message


def labelled(question: str, answer: str, label: bool) -> dict[str, Any]:
    return {
        "input": {"messages": [message("user", question)]},
        "output": [message("assistant", answer)],
        "label": label,
    }


def answers(count: int = 12) -> list[dict[str, Any]]:
    """Two rows a question, as pairs become them, but for every third question only the bad one."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        good = labelled(f"Say {number}.", f"{number}, gladly.", True)
        bad = labelled(f"Say {number}.", "No." * (1 + number % 3), False)
        rows += [bad] if number % 3 == 2 else [good, bad]
    rows[1] = labelled("你好吗?", "不好。", False)
    return rows
