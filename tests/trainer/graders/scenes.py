"""Short ways to write graders in tests."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.graders import GRADER, NO_TOOLS, Grade, Sample, Tools, grade_sample


def check(**more: Any) -> dict[str, Any]:
    """A `string_check` of the answer against the row's `answer`."""
    return {
        "type": "string_check",
        "name": "right",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "operation": "eq",
        **more,
    }


def graded(grader: dict[str, Any], text: str = "巴黎", item: Any = None, tools: Tools = NO_TOOLS) -> Grade:
    given = {"answer": "巴黎"} if item is None else item
    return grade_sample(GRADER.validate_python(grader), item=given, sample=Sample.from_text(text), tools=tools)


def refusal(grader: dict[str, Any]) -> str:
    """Return the sentences with which a grader is refused."""
    try:
        GRADER.validate_python(grader)
    except ValidationError as error:
        return "; ".join(item["msg"] for item in error.errors())
    raise AssertionError("the grader was taken")


def jails_of(parent: int) -> list[int]:
    """Return the graders' processes that a process started, in any of its threads."""
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        with suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return [pid for pid in found if _is_jail(pid)]


def _is_jail(pid: int) -> bool:
    try:
        return b"jail.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
