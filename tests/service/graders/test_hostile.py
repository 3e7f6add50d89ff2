"""Graders that would stop the service: what they cost it, who else is served, what is left when a caller hangs up."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.processes import wait_until
from tests.fixtures.service import make_context, run_api
from tests.service.graders.conftest import GradersWorld
from tests.service.graders.test_graders import CHECK, JUDGE, PYTHON, SIMILAR, graded, refused, run, validate
from tests.trainer.graders.scenes import jails_of
from trainer.graders import GRADER, Sample, grade_sample

pytestmark = pytest.mark.integration

MARKS = "a" + "\u0301\u0316" * 15_000


def many(**grader: Any) -> dict[str, Any]:
    graders = {f"g{number}": {**SIMILAR, **grader} for number in range(16)}
    return {"type": "multi", "name": "许多", "graders": graders, "calculate_output": "g1"}


def own_seconds() -> float:
    """Return the processor time of this process, in which the API runs; its children's is not in it."""
    return time.process_time()


HOSTILE: dict[str, tuple[dict[str, Any], str, Any]] = {
    "marks": (many(evaluation_metric="bleu"), MARKS, {"answer": MARKS}),
    "characters": (many(evaluation_metric="fuzzy_match"), "字" * 150_000, {"answer": "词" * 150_000}),
    "words": (many(evaluation_metric="rouge_l"), "a " * 19_000, {"answer": "b " * 19_000}),
    "expansion": (many(input="{{item}}" * 200), "x", {"answer": "长" * 100_000}),
    "deep paths": ({**CHECK, "input": "{{item" + ".a" * 490 + "}}"}, "x", {"answer": "x"}),
    "case": ({**CHECK, "operation": "ilike"}, "ß" * 200_000, {"answer": "SS" * 100_000 + "x"}),
    "json": ({**CHECK, "input": "{{sample.output_json[0]}}"}, "[" + "1," * 200_000 + "1]", {"answer": "1"}),
    "templates": ({**JUDGE, "input": [{"role": "user", "content": "{{item}}" * 60_000}]}, "x", {}),
    "braces": ({**CHECK, "input": "{" * 200_000, "reference": "{{" * 100_000}, "x", {}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_api_spends_little_on_a_byte(client: httpx.Client, kind: str) -> None:
    """Its own process must stay free: a microsecond a byte is generous, and seconds of normalising are far out."""
    grader, text, item = HOSTILE[kind]
    size = len(json.dumps({"grader": grader, "model_sample": text, "item": item}))
    graded(client, CHECK)
    began = own_seconds()
    answer = run(client, grader, text, item)
    assert own_seconds() - began < 0.3 + size * 1e-6
    assert answer.status_code in (200, 400), answer.text


def test_another_project_is_served_while_one_floods(world: GradersWorld) -> None:
    grader, text, item = HOSTILE["marks"][0], "字词" * 3000, {"answer": "词字" * 3000}
    with world.chat.client("hostile") as hostile, world.chat.client("other") as other, ThreadPoolExecutor(8) as pool:
        hostile.timeout = other.timeout = httpx.Timeout(120)
        flood = [pool.submit(run, hostile, grader, text, item) for _ in range(8)]
        time.sleep(0.3)
        for _ in range(3):
            assert graded(other, CHECK)["reward"] == 1.0
            assert graded(other, SIMILAR)["reward"] > 0
        assert not all(one.done() for one in flood)
        assert {one.result().status_code for one in flood} == {200}


def test_a_caller_who_hangs_up_ends_the_graders_process(world: GradersWorld) -> None:
    source = "import time\ndef grade(sample, item):\n    time.sleep(1000)"
    with world.chat.client("impatient") as client, ThreadPoolExecutor(1) as pool:
        client.timeout = httpx.Timeout(4)
        asked = pool.submit(run, client, {**PYTHON, "source": source})
        wait_until(lambda: bool(jails_of(os.getpid())), what="the grader's process", seconds=20)
        assert isinstance(asked.exception(), httpx.TimeoutException)
        wait_until(lambda: not jails_of(os.getpid()), what="its end", seconds=10)
        client.timeout = httpx.Timeout(60)
        assert graded(client, PYTHON)["reward"] == 0.6


@pytest.mark.parametrize(
    "does",
    [
        "os.close(3); time.sleep(1000)",
        "os.close(3)",
        "os._exit(9)",
        """os.write(3, b'{"error": "no machine", "kind": "sandbox"}'); os._exit(0)""",
    ],
)
def test_a_source_that_breaks_its_process_has_failed(client: httpx.Client, does: str) -> None:
    told = graded(client, {**PYTHON, "source": f"import os, time\ndef grade(sample, item):\n    {does}\n    return 1"})
    errors = told["metadata"]["errors"]
    assert (told["reward"], errors["python_grader_runtime_error"]) == (0.0, True)
    assert not errors["python_grader_server_error"]


def test_a_machine_that_cannot_run_python_says_so(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.graders.sandbox._JAIL", Path("/nowhere/jail.py"))
    errors = graded(client, PYTHON)["metadata"]["errors"]
    assert (errors["python_grader_server_error"], errors["python_grader_server_error_type"]) == (True, "sandbox")
    assert refused(validate(client, PYTHON), 503)[2] == "python_graders_unavailable"


@pytest.mark.parametrize(
    "text",
    [
        "今天北京的天气很好\uff0c适合出门散步。",
        "Vie\u0323\u0302t Nam đất nước tuyệt vời",
        "ที่นี่มีผู้คนมากมายและน้ำใจดีเยี่ยม",
        "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165 한국어 문장",
        "👩🏽\u200d👩🏽\u200d👧🏽\u200d👦🏽👍🏿 好",
    ],
)
@pytest.mark.parametrize("metric", ["bleu", "meteor", "rouge_l", "fuzzy_match"])
def test_a_process_grades_as_the_training_does(client: httpx.Client, text: str, metric: str) -> None:
    grader, item = {**SIMILAR, "evaluation_metric": metric}, {"answer": f"{text[3:]} 巴黎"}
    here = grade_sample(GRADER.validate_python(grader), item=item, sample=Sample.from_text(text))
    there = graded(client, grader, text, item)
    assert not here.failed
    assert there["reward"] == here.reward > 0


def test_the_children_end_with_the_api(tmp_path: Path) -> None:
    with run_api(make_context(tmp_path)) as api, api.client() as client:
        before = _programs()
        assert graded(client, CHECK)["reward"] == 1.0
        (child,) = _programs() - before
    wait_until(lambda: child not in _programs(), what="the child's end", seconds=20)


def _programs() -> set[int]:
    """Return the processes that grade for this one."""
    found: set[int] = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        for pid in (task / "children").read_text().split():
            command = Path(f"/proc/{pid}/cmdline")
            if command.exists() and b"grading_program" in command.read_bytes():
                found.add(int(pid))
    return found
