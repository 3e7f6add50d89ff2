"""A program: grades for the API, in a process that can be killed. `grading_children.py` starts it.

What takes a processor's time (templates, comparisons, JSON in answers) runs here, because Python's one lock would else
keep every other request waiting. It waits for nobody: what a grader asks of a model or of Python goes back to the API
as a wish, and the grader runs again with the answers.

A message to it is the body of a request as it came, and the answers so far, `{"replies": […], "rewards": […]}`. A
message from it is `{"grade": …}`, or `{"questions": […], "calls": n}` and the arguments of the n calls of Python, which
are the same for all.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping
from typing import Any, cast

from service.graders.frames import Pieces, read_message, write_message
from trainer.graders import GRADER, Failure, GraderQuestion, Reply, Sample, Tools, grade_sample
from trainer.graders.sandbox import encode_call

CPU_SECONDS = 10
"""Of one grading."""
MEMORY_BYTES = 1 << 30
READY: Pieces = (b"ready", b"")


class GraderWishes:
    """The tools of one grading: they answer what has been answered, and write down the rest, in the order of asking."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._replies: list[Any] = answers.get("replies", [])
        self._rewards: list[Any] = answers.get("rewards", [])
        self.questions: list[GraderQuestion] = []
        self.calls = 0
        self.call = b""

    @property
    def open(self) -> bool:
        """Whether something has not been answered."""
        return len(self.questions) > len(self._replies) or self.calls > len(self._rewards)

    def ask(self, question: GraderQuestion) -> Reply:
        """Return the model's reply. Raises Failure, also if there is none yet."""
        self.questions.append(question)
        return Reply.model_validate(_take_answer(self._replies, len(self.questions)))

    def run_python(self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:  # noqa: ARG002
        """Return the source's reward. Raises Failure, also if there is none yet."""
        self.calls += 1
        if not self._rewards:
            self.call = encode_call(sample, item)
        return float(_take_answer(self._rewards, self.calls))


def _take_answer(answers: list[Any], number: int) -> Any:
    if number > len(answers):
        raise Failure("other_error", "not asked yet")
    answer = answers[number - 1]
    if isinstance(answer, dict) and "flag" in answer:
        failure = cast("dict[str, Any]", answer)
        raise Failure(failure["flag"], failure["message"], kind=failure["kind"])
    return cast("Any", answer)


def grade_message(pieces: Pieces) -> Pieces:
    """Return the answer to one message."""
    body: dict[str, Any] = json.loads(pieces[0])
    wishes = GraderWishes(json.loads(pieces[1]))
    grade = grade_sample(
        GRADER.validate_python(body["grader"]),
        item=body.get("item"),
        sample=Sample.from_text(body["model_sample"]),
        tools=Tools(wishes.ask, wishes.run_python),
    )
    if not wishes.open:
        return _encode_json({"grade": grade.model_dump()}), b""
    reply = {"questions": [question.model_dump() for question in wishes.questions], "calls": wishes.calls}
    return _encode_json(reply), wishes.call


def _encode_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def main() -> None:
    """Grade until the API has gone."""
    requests, output = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but messages may come to the API
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower_limit(resource.RLIMIT_AS, MEMORY_BYTES)
    write_message(output, READY)
    while (pieces := read_message(requests)) is not None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        _lower_limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + 1 + CPU_SECONDS)
        write_message(output, grade_message(pieces))


def _lower_limit(kind: int, soft: int) -> None:
    """Set a soft limit, which may be raised again up to the hard one."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    main()
