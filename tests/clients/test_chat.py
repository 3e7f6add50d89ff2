# ruff: noqa: RUF001 - Chinese text
from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from burnish import APIConnectionError, APIError, APIResponseError, Burnish, NotFoundError
from tests.clients.scripted import SSE, Answer, Driver, Server, refusal

PATH = "/v1/chat/completions"
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好"}]


def a_completion(text: str = "你好！") -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "tiny",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "of_tomorrow": {"x": 1}},
    }


def a_chunk(text: str | None = None, finish: str | None = None, usage: bool = False) -> bytes:
    delta = {} if text is None else {"role": "assistant", "content": text}
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "tiny",
        "choices": [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5} if usage else None,
    }
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def said(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_a_whole_answer(driver: Driver, server: Server) -> None:
    server.on("POST", PATH, Answer(a_completion()))
    answer = driver.call(
        "chat.completions.create",
        model="tiny",
        messages=HELLO,
        temperature=0,
        max_tokens=8,
        seed=None,
        extra_body={"top_k": 4},
    )
    assert answer.choices[0].message.content == "你好！"
    assert (answer.usage.total_tokens, answer.usage.of_tomorrow) == (5, {"x": 1})
    sent = server.seen[0].json()
    assert sent == {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 8, "top_k": 4}
    driver.call("chat.completions.create", model="tiny", messages=[*HELLO, answer.choices[0].message])
    assert server.seen[1].json()["messages"][2] == {"role": "assistant", "content": "你好！"}


def test_a_streamed_answer(driver: Driver, server: Server) -> None:
    body = [a_chunk("你"), a_chunk("好！"), a_chunk(finish="stop"), a_chunk(usage=True), DONE]
    cut = b"".join(body)
    pieces = [cut[:11], cut[11:200], cut[200:]]
    server.on("POST", PATH, Answer(pieces, headers=SSE))
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = driver.items("chat.completions.create", model="tiny", messages=HELLO, **options)
    assert said(chunks) == "你好！"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices] == [None, None, "stop"]
    assert chunks[-1].usage.completion_tokens == 2
    assert server.seen[0].json()["stream"] is True
    assert server.seen[0].headers["accept"] == "text/event-stream"


def test_it_ends_with_done_though_the_server_stays(driver: Driver, server: Server) -> None:
    def body() -> Iterator[bytes]:
        yield a_chunk("好") + DONE
        yield from server.silence()

    server.on("POST", PATH, lambda _: Answer(body(), headers=SSE))
    assert said(driver.items("chat.completions.create", model="tiny", messages=HELLO, stream=True)) == "好"


@pytest.mark.parametrize("cut", [True, False])
def test_an_interrupted_answer_is_an_error(driver: Driver, server: Server, cut: bool) -> None:
    server.on("POST", PATH, Answer([a_chunk("你")], headers=SSE, cut=cut))
    stream = driver.call("chat.completions.create", model="tiny", messages=HELLO, stream=True)
    with pytest.raises(APIConnectionError, match="broke"):
        driver.drain(stream)
    assert len(server.seen) == 1, "an answer is not asked for twice once some of it was given"


def test_an_error_within_the_stream(driver: Driver, server: Server) -> None:
    error = {"error": {"message": "引擎停了。", "type": "server_error", "param": None, "code": "answer_failed"}}
    body = [a_chunk("你"), f"data: {json.dumps(error)}\n\n".encode()]
    server.on("POST", PATH, Answer(body, headers=SSE))
    stream = driver.call("chat.completions.create", model="tiny", messages=HELLO, stream=True)
    with pytest.raises(APIError, match=r"引擎停了。") as caught:
        driver.drain(stream)
    assert caught.value.request_id == "req_7"


@pytest.mark.parametrize("data", ["{}", "no json", '{"error": "text"}', "[]"])
def test_a_stream_of_something_else(driver: Driver, server: Server, data: str) -> None:
    server.on("POST", PATH, Answer([f"data: {data}\n\n".encode(), DONE], headers=SSE))
    stream = driver.call("chat.completions.create", model="tiny", messages=HELLO, stream=True)
    with pytest.raises(APIResponseError, match="streamed something unexpected"):
        driver.drain(stream)


@pytest.mark.parametrize("stream", [True, False])
def test_refusals_come_at_once_and_full_queues_are_tried_again(
    driver: Driver, server: Server, naps: list[float], stream: bool
) -> None:
    server.on("POST", PATH, refusal(404, "No model 甲."))
    with pytest.raises(NotFoundError, match="No model 甲"):
        driver.call("chat.completions.create", model="甲", messages=HELLO, stream=stream)
    server.on(
        "POST",
        PATH,
        [
            refusal(429, "full", headers={"retry-after": "2"}),
            Answer([a_chunk("好"), DONE], headers=SSE) if stream else Answer(a_completion()),
        ],
    )
    driver.call("chat.completions.create", model="tiny", messages=HELLO, stream=stream)
    assert naps == [2.0]


def test_closing_early_hangs_up(server: Server) -> None:
    left = threading.Event()

    def body() -> Iterator[bytes]:
        try:
            while not server.released.wait(0.01):
                yield a_chunk("好" * 1000)
        finally:
            left.set()

    server.on("POST", PATH, lambda _: Answer(body(), headers=SSE))
    with Burnish(base_url=server.url, api_key="k") as client:
        with client.chat.completions.create(model="tiny", messages=HELLO, stream=True) as stream:
            next(stream)
        assert left.wait(30), "the server still writes"
