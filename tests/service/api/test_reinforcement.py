"""Jobs against graders, as the API takes them: what a grader may use, and where it says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.jobs.methods import load_method
from tests.fixtures.service import RunningApi, make_context, run_api, upload
from tests.service.api.test_chains import create, created, finish

CHECK: dict[str, Any] = {
    "type": "string_check",
    "name": "right",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.答案}}",
}
PYTHON: dict[str, Any] = {"type": "python", "name": "p", "source": "def grade(sample, item):\n    return 1"}
JUDGE: dict[str, Any] = {
    "type": "score_model",
    "name": "judge",
    "model": "tiny",
    "input": [{"role": "user", "content": "打分: {{sample.output_text}}"}],
}
PLACE = "method.reinforcement.grader"
GIVEN = "method.reinforcement.hyperparameters"


def multi(**graders: dict[str, Any]) -> dict[str, Any]:
    return {"type": "multi", "name": "m", "graders": graders, "calculate_output": " + ".join(graders)}


def graded(grader: Any, **hyperparameters: Any) -> dict[str, Any]:
    return {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": hyperparameters}}


def test_the_requested_grader_is_shown_and_kept(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    job = created(client, file_id, "tiny", method=graded(multi(a=CHECK, b=JUDGE), compute_multiplier=2, group_size=4))
    block = job["method"]["reinforcement"]
    assert block["grader"]["graders"]["a"]["reference"] == "{{item.答案}}"
    assert (block["hyperparameters"]["compute_multiplier"], block["hyperparameters"]["group_size"]) == (2, 4)
    assert load_method(job["method"]).model_dump(mode="json") == job["method"]


@pytest.mark.parametrize("response_format", [None, {"type": "text"}])
def test_a_format_that_asks_for_nothing_is_accepted(
    client: httpx.Client, file_id: str, response_format: object
) -> None:
    method = {"type": "reinforcement", "reinforcement": {"grader": CHECK, "response_format": response_format}}
    shown = created(client, file_id, "tiny", method=method)["method"]["reinforcement"]
    assert shown["grader"]["name"] == CHECK["name"]


def test_a_grader_without_a_name_is_shown_with_its_type(client: httpx.Client, file_id: str) -> None:
    grader = {key: value for key, value in CHECK.items() if key != "name"}
    job = created(client, file_id, "tiny", method=graded(grader))
    assert job["method"]["reinforcement"]["grader"]["name"] == "string_check"


REFUSED: dict[str, tuple[Any, str, str]] = {
    "no grader": ({"type": "reinforcement", "reinforcement": {}}, PLACE, "required"),
    "an unknown kind": (graded(CHECK | {"type": "vibes"}), PLACE, "vibes"),
    "a grader as text": (graded("good"), PLACE, "an object"),
    "an unknown operation": (graded(CHECK | {"operation": "is"}), f"{PLACE}.operation", "ilike"),
    "a template of nothing": (graded(CHECK | {"input": "{{answer}}"}), PLACE, "item. or sample."),
    "an operation in a multi": (
        graded(multi(multi=CHECK | {"operation": 1})),
        f"{PLACE}.graders.multi.operation",
        "ilike",
    ),
    "a formula of strangers": (graded(multi(a=CHECK) | {"calculate_output": "a + b"}), PLACE, "b"),
    "python": (graded(PYTHON), PLACE, "BURNISH_PYTHON_GRADERS=on"),
    "python in a multi": (graded(multi(甲=PYTHON)), f"{PLACE}.graders.甲", "BURNISH_PYTHON_GRADERS=on"),
    "another model": (graded(JUDGE | {"model": "gpt-9"}), f"{PLACE}.model", "It can ask tiny,"),
    "another model in a multi": (graded(multi(a=JUDGE | {"model": "x"})), f"{PLACE}.graders.a.model", "tiny"),
    "two intervals": (
        graded(CHECK, eval_interval=1, eval_steps=2),
        GIVEN,
        "two names",
    ),
    "too many answers": (
        graded(CHECK, group_size=1024, compute_multiplier=2),
        GIVEN,
        "2048",
    ),
    "a format of answers": (
        {"type": "reinforcement", "reinforcement": {"grader": CHECK, "response_format": {"type": "json_object"}}},
        "method.reinforcement.response_format",
        "nothing holds them to a schema",
    ),
    "a format of no form": (
        {"type": "reinforcement", "reinforcement": {"grader": CHECK, "response_format": "答"}},
        "method.reinforcement.response_format",
        "Leave it out",
    ),
    "rollout_prompts": (
        graded(CHECK, rollout_prompts=2),
        f"{GIVEN}.rollout_prompts",
        "not a hyperparameter",
    ),
    "an effort": (
        graded(CHECK, reasoning_effort="some"),
        f"{GIVEN}.reasoning_effort",
        "default",
    ),
    "a multiplier of nothing": (
        graded(CHECK, compute_multiplier=0),
        f"{GIVEN}.compute_multiplier",
        "greater",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_by_its_place(api: RunningApi, client: httpx.Client, file_id: str, name: str) -> None:
    method, param, said = REFUSED[name]
    answer = create(client, file_id, "tiny", method=method)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert said in error["message"]


def test_the_model_at_the_start_may_judge(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    parent = created(client, file_id, "tiny")["id"]
    name = finish(api, parent, checkpoint=3)
    for model, judges in ((parent, ("tiny", name, parent)), (f"{name}:ckpt-step-3", ("tiny", f"{name}:ckpt-step-3"))):
        for judge in judges:
            created(client, file_id, model, method=graded(JUDGE | {"model": judge}))
    answer = create(client, file_id, f"{name}:ckpt-step-3", method=graded(JUDGE | {"model": name}))
    assert answer.json()["error"]["code"] == "grader_model_not_at_hand"


def test_python_is_taken_where_the_operator_allows_it(tmp_path: Path) -> None:
    with run_api(make_context(tmp_path, python_graders="on")) as api, api.client() as client:
        created(client, upload(client).json()["id"], "tiny", method=graded(multi(a=PYTHON, b=CHECK)))
