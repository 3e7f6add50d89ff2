"""Graders that compare what takes long to compare, and Python that does not end."""

from __future__ import annotations

import asyncio
import json
import random
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from tests.abuse.attacks.base import Attack

_METRICS = ("fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_5", "rouge_l")
_ENDLESS = "def grade(sample, item):\n    while True:\n        pass\n"


class Similarity(Attack):
    """Has two texts compared by every metric in turn."""

    hangs_up = True

    async def prepare(self) -> None:
        """Make the requests."""
        first, second = self.texts()
        self._requests = [self._request(metric, first, second) for metric in _METRICS]

    async def run(self, stop: asyncio.Event) -> None:
        """Compare."""
        await self.repeat(stop, lambda number: self._requests[number % len(self._requests)], at_once=8)

    @abstractmethod
    def texts(self) -> tuple[str, str]:
        """Return the texts."""

    def _request(self, metric: str, first: str, second: str) -> bytes:
        grader = {
            "type": "text_similarity",
            "name": "near",
            "input": "{{sample.output_text}}",
            "reference": "{{item.answer}}",
            "evaluation_metric": metric,
        }
        return _run(self, grader, first, {"answer": second})


class CombiningMarks(Similarity):
    name = "similarity of combining marks"
    description = "texts of 200,000 combining marks, in another order each, by every metric"

    def texts(self) -> tuple[str, str]:
        dice = random.Random(7)
        marks = [chr(code) for code in range(0x300, 0x34F)]
        first, second = ("e" + "".join(dice.choices(marks, k=199_999)) for _ in range(2))
        return first, second


class LongTexts(Similarity):
    name = "similarity of 200,000 by 200,000 characters"
    description = "two texts of 200,000 characters and 20,000 words, the most that is compared, by every metric"
    short = True

    def texts(self) -> tuple[str, str]:
        dice = random.Random(7)
        first, second = (_words(lambda: dice.choice("abcdefgh")) for _ in range(2))
        return first, second


class EndlessPython(Attack):
    name = "endless Python graders"
    description = "8 callers whose Python grader never returns"
    hangs_up = True
    short = True

    async def run(self, stop: asyncio.Event) -> None:
        """Grade."""
        request = _python(self)
        await self.repeat(stop, lambda _number: request, at_once=8)


class PythonHangUps(Attack):
    name = "endless Python graders, callers that hang up"
    description = "8 callers whose Python grader never returns, and who leave after 0.3 s and come again"
    hangs_up = True

    async def run(self, stop: asyncio.Event) -> None:
        """Grade, and leave."""
        await self.together(stop, [self._caller(_python(self)) for _ in range(8)])

    async def _caller(self, request: bytes) -> None:
        while True:
            task = asyncio.create_task(self.ask(request))
            await asyncio.wait({task}, timeout=0.3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _words(letter: Callable[[], str]) -> str:
    """Return 20,000 words in 200,000 characters."""
    return " ".join("".join(letter() for _ in range(9)) for _ in range(20_000)) + "."


def _python(attack: Attack) -> bytes:
    return _run(attack, {"type": "python", "name": "endless", "source": _ENDLESS}, "x", {})


def _run(attack: Attack, grader: dict[str, Any], sample: str, item: dict[str, Any]) -> bytes:
    body = {"grader": grader, "model_sample": sample, "item": item}
    text = json.dumps(body, ensure_ascii=False).encode()
    return attack.maker.request("POST", "/v1/fine_tuning/alpha/graders/run", text)


ALL = (CombiningMarks, LongTexts, EndlessPython, PythonHangUps)
