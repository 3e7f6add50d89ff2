"""Graders over HTTP: every type, OpenAI's client, what is refused, and what is told in the answer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from service.chat.errors import EngineBusy
from service.kit.errors import InvalidRequest
from tests.fixtures.databases import api_on, client_with
from tests.fixtures.service import make_context, run_api
from tests.fixtures.valkey import run_valkey
from tests.service.graders.conftest import GradersWorld

pytestmark = pytest.mark.integration

ANSWER, ITEM = "答案是巴黎。", {"answer": "巴黎"}
CHECK: dict[str, Any] = {
    "type": "string_check",
    "name": "含有答案",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "like",
}
SIMILAR: dict[str, Any] = {
    "type": "text_similarity",
    "name": "similar",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "evaluation_metric": "rouge_l",
}
PYTHON: dict[str, Any] = {
    "type": "python",
    "name": "code",
    "source": "def grade(sample, item):\n    return len(sample['output_text']) / 10",
    "image_tag": "2025-05-08",
}
JUDGE: dict[str, Any] = {
    "type": "score_model",
    "name": "judge",
    "model": "tiny",
    "input": [{"role": "user", "content": "参考: {{item.answer}} 答: {{sample.output_text}}", "type": "message"}],
    "range": [0, 10],
    "sampling_params": {"temperature": 0.5, "max_completions_tokens": 40},
}
LABEL: dict[str, Any] = {
    "type": "label_model",
    "name": "label",
    "model": "tiny",
    "input": [{"role": "user", "content": "{{sample.output_text}}"}],
    "labels": ["好", "坏"],
    "passing_labels": ["好"],
}
MULTI: dict[str, Any] = {
    "type": "multi",
    "name": "all",
    "graders": {"check": CHECK, "similar": SIMILAR, "code": PYTHON, "judge": JUDGE},
    "calculate_output": "check + similar + code + judge / 10",
}


def run(client: httpx.Client, grader: Any, text: str = ANSWER, item: Any = ITEM) -> httpx.Response:
    body = {"grader": grader, "model_sample": text, "item": item}
    return client.post("/fine_tuning/alpha/graders/run", json=body)


def graded(client: httpx.Client, grader: Any, text: str = ANSWER, item: Any = ITEM) -> dict[str, Any]:
    answer = run(client, grader, text, item)
    assert answer.status_code == 200, answer.text
    return answer.json()


def validate(client: httpx.Client, grader: Any) -> httpx.Response:
    return client.post("/fine_tuning/alpha/graders/validate", json={"grader": grader})


def refused(answer: httpx.Response, status: int = 400) -> tuple[str, str, str]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    return error["param"], error["message"], error["code"]


def test_a_run_has_openais_shape(client: httpx.Client) -> None:
    told = graded(client, CHECK)
    seconds = told["metadata"].pop("execution_time")
    assert 0 <= seconds < 60
    flags = {
        "formula_parse_error": False,
        "invalid_variable_error": False,
        "model_grader_parse_error": False,
        "model_grader_refusal_error": False,
        "model_grader_server_error": False,
        "model_grader_server_error_details": None,
        "other_error": False,
        "python_grader_runtime_error": False,
        "python_grader_runtime_error_details": None,
        "python_grader_server_error": False,
        "python_grader_server_error_type": None,
        "sample_parse_error": False,
        "truncated_observation_error": False,
        "unresponsive_reward_error": False,
        "messages": [],
    }
    assert told == {
        "reward": 1.0,
        "metadata": {
            "name": "含有答案",
            "type": "string_check",
            "errors": flags,
            "scores": {},
            "token_usage": None,
            "sampled_model_name": None,
        },
        "sub_rewards": {},
        "model_grader_token_usage_per_model": {},
    }


@pytest.mark.parametrize("strict", [False, True])
def test_openais_client_runs_every_type(world: GradersWorld, strict: bool) -> None:
    key = world.chat.api.key("desk")
    with OpenAI(base_url=world.chat.api.url, api_key=key, _strict_response_validation=strict) as official:
        graders = official.fine_tuning.alpha.graders
        rewards = [
            graders.run(grader=grader, model_sample=ANSWER, item=ITEM).reward
            for grader in (CHECK, SIMILAR, PYTHON, JUDGE)
        ]
        assert rewards == pytest.approx([1.0, 2 * 2 / (5 + 2), 0.6, 0.5])
        result = graders.run(grader=MULTI, model_sample=ANSWER, item=ITEM)  # type: ignore[arg-type]
        assert result.reward == pytest.approx(1.0 + 4 / 7 + 0.6 + 0.05)
        assert result.sub_rewards == pytest.approx({"check": 1.0, "similar": 4 / 7, "code": 0.6, "judge": 0.5})
        assert (result.metadata.type, result.metadata.token_usage) == ("multi", 25)
        assert result.metadata.sampled_model_name == "tiny"
        usage = result.api_model_grader_token_usage_per_model
        assert usage == {"tiny": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}}
        wrong = graders.run(grader=CHECK, model_sample=ANSWER)  # no item at all
        assert (wrong.reward, wrong.metadata.errors.invalid_variable_error) == (0.0, True)
        one = {"type": "multi", "name": "m", "graders": LABEL, "calculate_output": "1 - label"}
        for grader in (CHECK, SIMILAR, PYTHON, JUDGE, one):
            validated = graders.validate(grader=grader)  # type: ignore[arg-type]
            assert validated.grader is not None
            assert validated.grader.to_dict() == grader
        with pytest.raises(BadRequestError, match="operation"):
            graders.validate(grader={**CHECK, "operation": "gt"})  # type: ignore[typeddict-item]


def unnamed(grader: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in grader.items() if key != "name"}


@pytest.mark.parametrize("grader", [CHECK, SIMILAR, PYTHON, JUDGE, MULTI], ids=lambda grader: grader["type"])
def test_a_grader_without_a_name_is_named_after_its_type(
    world: GradersWorld, client: httpx.Client, grader: dict[str, Any]
) -> None:
    named = {**grader, "name": grader["type"]}
    assert validate(client, unnamed(grader)).json() == {"grader": named}
    assert graded(client, unnamed(grader))["metadata"]["name"] == grader["type"]
    with OpenAI(base_url=world.chat.api.url, api_key=world.chat.api.key("desk")) as official:
        result = official.fine_tuning.alpha.graders.validate(grader=unnamed(grader))  # type: ignore[arg-type]
        assert result.grader is not None
        assert result.grader.to_dict() == named


def test_unnamed_graders_inside_of_multi_go_by_their_keys(client: httpx.Client) -> None:
    inside = {"相同": unnamed(CHECK), "string_check": unnamed(SIMILAR)}
    grader = {**unnamed(MULTI), "graders": inside, "calculate_output": "相同 + string_check"}
    assert graded(client, grader)["sub_rewards"] == pytest.approx({"相同": 1.0, "string_check": 4 / 7})
    alone = {**unnamed(MULTI), "graders": unnamed(CHECK), "calculate_output": "2 * string_check"}
    assert graded(client, alone)["reward"] == 2.0


def test_a_validation_answers_the_grader_as_it_came(client: httpx.Client) -> None:
    for grader in (CHECK, PYTHON, MULTI):
        answer = validate(client, grader)
        assert (answer.status_code, answer.json()) == (200, {"grader": grader})


def test_a_judge_gets_its_question_as_a_chat(world: GradersWorld, client: httpx.Client) -> None:
    world.model.says = '理由充分。{"steps": [], "result": 7}'
    told = graded(client, JUDGE)
    assert (told["reward"], told["metadata"]["sampled_model_name"]) == (7.0, "tiny")
    (question,) = world.model.asked
    request = question.request
    assert [(message.role, message.text) for message in request.messages] == [("user", f"参考: 巴黎 答: {ANSWER}")]
    assert (request.temperature, request.max_completion_tokens) == (0.5, 40)
    assert request.response_format is None
    assert (question.source.base, question.source.job_id) == ("tiny", None)


def test_a_fine_tuned_model_judges(world: GradersWorld, client: httpx.Client) -> None:
    job, name = world.chat.result(5)
    told = graded(client, {**JUDGE, "model": name})
    assert told["metadata"]["sampled_model_name"] == name
    assert world.model.asked[-1].source.job_id == job
    with world.chat.client("others") as others:
        param, message, code = refused(run(others, {**JUDGE, "model": name}), 404)
    assert (param, code) == ("grader.model", "model_not_found")
    assert name in message


@pytest.mark.parametrize(
    ("says", "ends", "flag", "why"),
    [
        ("我不知道", "stop", "model_grader_parse_error", "it has to say a number"),
        ("Let me think", "length", "model_grader_parse_error", "its tokens ran out"),
        ("11", "stop", "model_grader_parse_error", "lies outside its range, 0 to 10"),
        ('"\\ud800"', "stop", "model_grader_parse_error", "is not a number"),
        ("", "content_filter", "model_grader_refusal_error", "the model refused to grade"),
    ],
)
def test_a_judges_bad_answer_is_reported(
    world: GradersWorld, client: httpx.Client, says: str, ends: Any, flag: str, why: str
) -> None:
    world.model.says, world.model.ends = says, ends
    told = graded(client, JUDGE)
    assert (told["reward"], told["metadata"]["errors"][flag]) == (0.0, True)
    assert why in told["metadata"]["errors"]["messages"][0]


def test_the_engines_refusals_are_reported(world: GradersWorld, client: httpx.Client) -> None:
    world.model.fails = InvalidRequest("The conversation is longer than the model's context.")
    errors = graded(client, JUDGE)["metadata"]["errors"]
    assert errors["model_grader_server_error_details"] == "The conversation is longer than the model's context."
    world.model.fails = EngineBusy("1 conversations wait already. Try again in a few seconds.")
    assert refused(run(client, JUDGE), 429)[2] == "engine_overloaded"


def test_a_labeller_labels_inside_of_multi(world: GradersWorld, client: httpx.Client) -> None:
    grader = {"type": "multi", "name": "m", "graders": {"标签": LABEL}, "calculate_output": "标签"}
    world.model.says = '{"result": "好"}'
    assert graded(client, grader)["reward"] == 1.0
    world.model.says = "坏"
    assert graded(client, grader)["sub_rewards"] == {"标签": 0.0}
    assert "has the type 'label_model'; use one of" in refused(validate(client, LABEL))[1]


def test_tokens_of_judges_count_for_the_projects_rate(
    world: GradersWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.graders.service.open_engine", lambda _: world.model)
    with (
        run_valkey() as valkey,
        api_on("sqlite", tmp_path, redis_url=valkey.url, rate_tokens_per_minute=100) as api,
        client_with(api, "desk") as client,
    ):
        answers = [run(client, JUDGE) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        assert "limit of 100 tokens a minute" in refused(answers[-1], 429)[1]
        assert graded(client, CHECK)["reward"] == 1.0


def test_python_is_off_unless_the_operator_says_otherwise(tmp_path: Path) -> None:
    with run_api(make_context(tmp_path)) as api, api.client("desk") as client:
        for answer in (run(client, PYTHON), validate(client, PYTHON)):
            param, message, code = refused(answer)
            assert (param, code) == ("grader", "python_graders_off")
            assert "BURNISH_PYTHON_GRADERS=on" in message
        assert refused(run(client, MULTI))[0] == "grader.graders.code"
        assert graded(client, CHECK)["reward"] == 1.0
        answer = run(client, JUDGE)
        assert refused(answer, 503)[2] == "chat_unavailable"
        assert answer.headers["x-should-retry"] == "false"


def test_python_cannot_reach_the_service(world: GradersWorld, client: httpx.Client) -> None:
    database = world.chat.context.settings.data / "burnish.db"
    assert database.exists()
    for body in (f"open({str(database)!r}, 'rb')", f"__import__('os').kill({os.getpid()}, 9)"):
        told = graded(client, {**PYTHON, "source": f"def grade(sample, item):\n    return {body}"})
        errors = told["metadata"]["errors"]
        assert (told["reward"], errors["python_grader_runtime_error"]) == (0.0, True)
        assert errors["python_grader_runtime_error_details"].startswith("line 2: PermissionError")
    surrogate = {**PYTHON, "source": "def grade(sample, item):\n    raise ValueError('\\ud800')"}
    assert "ValueError: ?" in graded(client, surrogate)["metadata"]["errors"]["python_grader_runtime_error_details"]


@pytest.mark.parametrize(
    ("grader", "param", "why"),
    [
        (None, "grader", "an object"),
        ({}, "grader", "needs a type"),
        ({**CHECK, "type": "regex"}, "grader", "'string_check', 'text_similarity', 'python', 'score_model', 'multi'"),
        ({**CHECK, "operation": "contains"}, "grader.operation", "'eq', 'ne', 'like' or 'ilike'"),
        ({**CHECK, "pass": 1}, "grader.pass", "unknown argument"),
        ({key: CHECK[key] for key in CHECK if key != "reference"}, "grader.reference", "required, but it is missing"),
        ({**CHECK, "input": "{{answer}}"}, "grader", "the template {{answer}} must begin with item. or sample."),
        ({**CHECK, "name": "\0"}, "grader.name", "NUL character"),
        ({**CHECK, "name": "\ud800"}, "grader.name", "has half of a surrogate pair"),
        ({**SIMILAR, "evaluation_metric": "cosine"}, "grader.evaluation_metric", "use fuzzy_match"),
        ({**PYTHON, "source": "def grade(sample, item) return 1"}, "grader.source", "line 1: SyntaxError"),
        ({**PYTHON, "source": "x = 1"}, "grader.source", "it has no function grade(sample, item)"),
        ({**PYTHON, "source": "#" * 300_000}, "grader.source", "262144 are the most"),
        ({**JUDGE, "range": [1, 1]}, "grader.range", "the lower first"),
        ({**JUDGE, "model": "gpt-4o"}, "grader.model", "The model 'gpt-4o' does not exist here"),
        ({**MULTI, "calculate_output": "check +"}, "grader", "the formula cannot be read"),
        ({**MULTI, "calculate_output": "check + other"}, "grader", "names 'other', which is not a grader"),
        ({**MULTI, "graders": {"a": {**CHECK, "operation": 1}}}, "grader.graders.a.operation", "'eq'"),
        ({**MULTI, "graders": {"python": {**PYTHON, "source": 1}}}, "grader.graders.python.source", "a string"),
        (
            {**MULTI, "graders": {"j": {**JUDGE, "model": "x"}}, "calculate_output": "j"},
            "grader.graders.j.model",
            "'x'",
        ),
        (
            {**JUDGE, "input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "grader.input.0.content",
            "images",
        ),
    ],
)
def test_a_wrong_grader_is_refused_by_its_place(client: httpx.Client, grader: Any, param: str, why: str) -> None:
    content = json.dumps({"grader": grader}).encode()
    answer = client.post(
        "/fine_tuning/alpha/graders/validate", content=content, headers={"Content-Type": "application/json"}
    )
    told, message, _ = refused(answer, 404 if param.endswith("model") else 400)
    assert told == param
    assert why in message


def test_a_wrong_body_is_refused(client: httpx.Client) -> None:
    path = "/fine_tuning/alpha/graders/run"
    assert refused(client.post(path, json={"grader": CHECK}))[0] == "model_sample"
    assert refused(run(client, CHECK, item=["巴黎"]))[0] == "item"
    assert refused(run(client, CHECK, text=3))[0] == "model_sample"  # type: ignore[arg-type]
    assert refused(run(client, CHECK, item={"a\0": 1}))[0] == "item"
    assert refused(run(client, CHECK, text="x" * (1 << 20)), 413)[2] == "too_large"
    assert refused(client.post(path, json={"grader": CHECK, "model_sample": "", "item": {}, "reference": 1}))[0] == (
        "reference"
    )


@pytest.mark.parametrize("depth", [100, 900, 5000])
def test_deep_nesting_is_not_a_fault_of_the_service(client: httpx.Client, depth: int) -> None:
    for grader in ({**CHECK, "reference": "{{item.a}}"}, PYTHON):
        content = json.dumps({"grader": grader, "model_sample": "x", "item": {"a": "DEEP"}})
        content = content.replace('"DEEP"', "[" * depth + "]" * depth)
        headers = {"Content-Type": "application/json"}
        answer = client.post("/fine_tuning/alpha/graders/run", content=content, headers=headers)
        assert answer.status_code in ((200,) if depth == 100 else (200, 400)), answer.text


def test_a_key_that_only_reads_may_not(world: GradersWorld) -> None:
    with client_with(world.chat.api, "readers", "read") as client:
        assert run(client, CHECK).status_code == validate(client, CHECK).status_code == 403
    bare = httpx.post(f"{world.chat.api.url}/fine_tuning/alpha/graders/run", json={})
    assert bare.status_code == 401
