"""Chat completions over HTTP with a real engine: bases, adapters, checkpoints, streams, and every refusal."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from service.chat.schemas import ChatCompletionRequest
from service.tables.jobs import JobState
from tests.fixtures.processes import wait_until
from tests.service.chat.conftest import ChatWorld

pytestmark = pytest.mark.integration

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好, who are you?"}]
ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": [{"type": "text", "text": "你好"}]}]
BIAS = {"logit_bias": {"50": 100}}
"""Makes every token the same, so that an answer never ends by itself."""


def ask(client: httpx.Client, model: str = "tiny", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": MESSAGES, "temperature": 0, "max_tokens": 12, **more}
    return client.post("/chat/completions", json=body)


def said(client: httpx.Client, model: str = "tiny", **more: Any) -> str:
    answer = ask(client, model, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def test_a_base_answers_in_openais_shape(client: httpx.Client) -> None:
    answer = ask(client).json()
    assert answer["id"].startswith("chatcmpl-")
    assert (answer["object"], answer["model"]) == ("chat.completion", "tiny")
    choice = answer["choices"][0]
    assert (choice["index"], choice["message"]["role"], choice["logprobs"]) == (0, "assistant", None)
    assert choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 1 <= usage["completion_tokens"] <= 12


def test_each_model_answers_by_its_own_weights(world: ChatWorld, client: httpx.Client) -> None:
    job, first = world.result(1)
    _, second = world.result(2)
    _, checkpoint = world.result(3, step=4, state=JobState.RUNNING)
    _, paused = world.result(4, step=3, state=JobState.PAUSED)
    names = ["tiny", first, second, checkpoint, paused]
    answers = [said(client, name) for name in names]
    assert len(set(answers)) == 5
    assert [said(client, name) for name in reversed(names)] == answers[::-1]
    assert said(client, job) == answers[1]


def test_a_stream_says_the_same_as_the_whole(world: ChatWorld, client: httpx.Client) -> None:
    _, name = world.result(1)
    body = {"model": name, "messages": MESSAGES, "temperature": 0, "max_tokens": 12, "stream": True, "n": 2}
    with client.stream("POST", "/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    for index in (0, 1):
        own = [choice for choice in choices if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in own) == said(client, name)
        assert [choice["finish_reason"] for choice in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1]["finish_reason"] in ("stop", "length")


def test_the_official_client_reads_everything_strictly(world: ChatWorld) -> None:
    _, name = world.result(1)
    with OpenAI(base_url=world.api.url, api_key=world.api.key("desk"), _strict_response_validation=True) as official:
        whole = official.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": "你好"}],
            max_completion_tokens=6,
            seed=3,
            logprobs=True,
            top_logprobs=2,
        )
        logprobs = whole.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in logprobs.content)
        stream = official.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": "你好"}],
            max_completion_tokens=6,
            seed=3,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage == whole.usage


def test_tools_reach_the_model_and_an_answer_may_be_no_call(client: httpx.Client) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    with_tool = ask(client, tools=[tool], tool_choice="auto").json()
    without = ask(client, tools=[tool], tool_choice="none").json()
    assert with_tool["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"]
    assert (
        "tool_calls" not in with_tool["choices"][0]["message"] or not with_tool["choices"][0]["message"]["tool_calls"]
    )


def test_the_default_length_is_the_operators(client: httpx.Client) -> None:
    answer = client.post("/chat/completions", json={"model": "tiny", "messages": MESSAGES, **BIAS}).json()
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model": "gpt-4"}, 404, "The model 'gpt-4' does not exist"),
        ({"model": "from-scratch"}, 404, "does not exist"),
        ({"model": "ft:tiny:burnish:x:aaaaaaaa"}, 404, "does not exist"),
        ({"model": "ftjob-aaaaaaaaaaaaaaaaaaaaaaaa"}, 404, "does not exist"),
        ({"model": "../base"}, 404, "does not exist"),
        ({"messages": []}, 400, "messages: give at least 1 message."),
        ({"messages": [{"role": "user", "content": 7}]}, 400, "messages.0.content: must be a string or a list."),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "messages.0.content.0: images cannot be read",
        ),
        ({"messages": [{"role": "user"}]}, 400, "messages.0"),
        ({"messages": [{"role": "user", "content": "字" * 400}]}, 400, "room for 512"),
        ({"temperature": 2.5}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"n": 99}, 400, "n: "),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"stop": ["a"] * 5}, 400, "stop"),
        ({"logit_bias": {"x": 1}}, 400, "token ids"),
        ({"logit_bias": {"1": 101}}, 400, "logit_bias"),
        ({"top_logprobs": 2}, 400, "needs logprobs"),
        ({"stream_options": {"include_usage": True}}, 400, "needs stream"),
        ({"response_format": {"type": "json_object"}}, 400, "inference server"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"tools": [{"type": "retrieval"}]}, 400, "tools.0"),
        ({"seed": 1 << 64}, 400, "seed"),
        ({"best_of": 2}, 400, "best_of: unknown argument"),
        ({"modalities": ["text", "audio"]}, 400, "modalities: audio is not supported"),
        ({"modalities": ["video"]}, 400, "modalities.0"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, 400, "audio: is not supported: answers are text alone"),
        ({"functions": [{"name": "f"}]}, 400, "functions: is not supported: it is deprecated; use tools"),
        ({"function_call": "auto"}, 400, "function_call: is not supported"),
        ({"web_search_options": {}}, 400, "web_search_options: is not supported"),
        ({"moderation": {"model": "m"}}, 400, "moderation: is not supported"),
        ({"verbosity": "loud"}, 400, "verbosity"),
        ({"messages": [{"role": "user", "content": "x", "weight": 0.5}]}, 400, "messages.0.weight"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_refused_by_name(
    client: httpx.Client, change: dict[str, Any], status: int, words: str, stream: bool
) -> None:
    options = {"stream": True} if stream and "stream_options" not in change else {}
    answer = ask(client, **{"model": "tiny", **change, **options})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("kind", "named"),
    [("image_url", "images"), ("input_audio", "audio"), ("file", "files"), ("video_url", "videos")],
)
def test_parts_that_are_not_text_are_refused_by_a_sentence(client: httpx.Client, kind: str, named: str) -> None:
    content = [{"type": "text", "text": "这是什么?"}, {"type": kind, kind: {"url": "data:,"}}]
    error = ask(client, messages=[{"role": "user", "content": content}]).json()["error"]
    assert error["message"].count("messages.0.content.1") == 1
    assert f"messages.0.content.1: {named} cannot be read: models here read text alone" in error["message"]


def test_the_official_clients_options_without_effect_are_accepted(world: ChatWorld) -> None:
    with OpenAI(base_url=world.api.url, api_key=world.api.key("desk"), _strict_response_validation=True) as official:
        plain = official.chat.completions.create(model="tiny", messages=ASKED, temperature=0, max_tokens=4)
        more = official.chat.completions.create(
            model="tiny",
            messages=ASKED,
            temperature=0,
            max_tokens=4,
            metadata={"团队": "客服"},
            modalities=["text"],
            parallel_tool_calls=True,
            prediction={"type": "content", "content": [{"type": "text", "text": "你好"}]},
            prompt_cache_key="k",
            prompt_cache_retention="24h",
            reasoning_effort="minimal",
            response_format={"type": "text"},
            safety_identifier="s",
            service_tier="flex",
            store=True,
            top_logprobs=0,
            user="李",
            verbosity="low",
        )
    assert more.choices == plain.choices


def test_options_that_are_null_are_as_if_left_out(world: ChatWorld, client: httpx.Client) -> None:
    required = {"model", "messages", "max_tokens"}
    nulls = dict.fromkeys(set(ChatCompletionRequest.model_fields) - required)
    assert ask(client, **nulls).status_code == 200


def test_a_weight_with_a_decimal_point_is_a_weight(client: httpx.Client) -> None:
    answered = {"role": "assistant", "content": "好", "weight": 1.0}
    assert ask(client, messages=[*MESSAGES, answered, MESSAGES[1]]).status_code == 200


def test_models_that_write_nothing_yet_or_never_are_refused(world: ChatWorld, client: httpx.Client) -> None:
    job, name = world.result(5, state=JobState.RUNNING)
    for asked in (job, name):
        refused = ask(client, asked)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_not_ready")
    _, reward = world.result(6, method={"type": "reward", "reward": {"hyperparameters": {}}})
    assert "reward model" in ask(client, reward).json()["error"]["message"]
    cancelled, _ = world.result(7, state=JobState.CANCELLED)
    assert ask(client, cancelled).status_code in (400, 404, 409)


def test_another_projects_model_is_unknown_until_it_is_shared(world: ChatWorld, client: httpx.Client) -> None:
    _, name = world.result(8)
    with world.client("neighbour") as neighbour:
        assert ask(neighbour, name).status_code == 404
        project = neighbour.get("/files")  # makes sure that the key works
        assert project.status_code == 200
    with world.context.db.read() as session:
        from sqlalchemy import select

        from service.tables.keys import ProjectRow

        neighbour_id = session.scalars(select(ProjectRow.id).where(ProjectRow.name == "neighbour")).one()
    shared = client.post(f"/fine_tuning/checkpoints/{name}/permissions", json={"project_ids": [neighbour_id]})
    assert shared.status_code == 200, shared.text
    with world.client("neighbour") as neighbour:
        assert said(neighbour, name) == said(client, name)


def test_a_damaged_adapter_is_not_used(world: ChatWorld, client: httpx.Client) -> None:
    job, name = world.result(9)
    key = f"jobs/{job}/attempt-1/output/adapter/adapter_model.safetensors"
    world.context.storage.put(key, [b"x" * 100])
    refused = ask(client, name)
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "model_damaged")
    assert said(client)


def test_too_many_at_once_are_sent_away(world: ChatWorld) -> None:
    """One is answered, one waits, the others are told to come back, with what the official client obeys."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 200, **BIAS}
    with world.client() as client, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.post("/chat/completions", json=body), range(6)))
    busy = [answer for answer in answers if answer.status_code == 429]
    assert busy
    assert {answer.status_code for answer in answers} == {200, 429}
    assert {(answer.headers["retry-after"], answer.headers["x-should-retry"]) for answer in busy} == {("2", "true")}
    assert busy[0].json()["error"]["code"] == "engine_overloaded"


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_frees_the_engine(world: ChatWorld, client: httpx.Client, stream: bool) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 450, **BIAS}
    for _ in range(4):
        if stream:
            with client.stream("POST", "/chat/completions", json={**body, "stream": True}) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/chat/completions", json=body, timeout=0.1)
        wait_until(lambda: ask(client, max_tokens=2).status_code == 200, what="a free engine")


def test_a_key_is_needed(world: ChatWorld) -> None:
    with httpx.Client(base_url=world.api.url) as nobody:
        assert ask(nobody).status_code == 401
