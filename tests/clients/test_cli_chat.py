"""`burnish chat`: one answer, an answer to a pipe, a conversation, and what goes wrong in it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from burnish.cli import main
from tests.clients.scripted import SSE, Answer, Server, refusal
from tests.clients.test_chat import DONE, PATH, a_chunk, a_completion

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("BURNISH_BASE_URL", server.url)
    monkeypatch.setenv("BURNISH_API_KEY", "bk-test")

    def run(*arguments: str, typed: str | None = None) -> tuple[int, str, str]:
        stdin = io.StringIO(typed or "")
        monkeypatch.setattr(stdin, "isatty", lambda: typed is not None and "--pipe" not in arguments)
        monkeypatch.setattr("sys.stdin", stdin)
        return (int(main([word for word in arguments if word != "--pipe"])), *capfd.readouterr())

    return run


def streamed(*pieces: str, finish: str = "stop") -> Answer:
    return Answer([*(a_chunk(piece) for piece in pieces), a_chunk(finish=finish), DONE], headers=SSE)


def in_turn(*answers: Answer) -> Callable[[Any], Answer]:
    left = iter(answers)
    return lambda _: next(left)


def sent(server: Server) -> list[dict[str, Any]]:
    return [seen.json() for seen in server.seen]


def test_a_prompt_gets_one_answer_as_it_comes(run: Run, server: Server) -> None:
    server.on("POST", PATH, streamed("你", "好!"))
    asked = ("tiny", "谁?", "--system", "Be brief.", "--temperature", "0", "--max-tokens", "5", "--stop", "x")
    assert run("chat", *asked) == (0, "你好!\n", "")
    (body,) = sent(server)
    assert [message["content"] for message in body["messages"]] == ["Be brief.", "谁?"]
    assert (body["temperature"], body["max_tokens"], body["stop"], body["stream"]) == (0, 5, ["x"], True)
    assert "seed" not in body


def test_a_prompt_from_a_pipe_and_json(run: Run, server: Server) -> None:
    server.on("POST", PATH, Answer(a_completion("好")))
    status, out, _ = run("chat", "tiny", "-", "--json", "--pipe", typed="第一行\nsecond\n")
    assert (status, json.loads(out)["choices"][0]["message"]["content"]) == (0, "好")
    assert sent(server)[0]["messages"][0]["content"] == "第一行\nsecond"
    status, _, err = run("chat", "tiny", "--pipe", typed="")
    assert status == 2
    assert "PROMPT" in err


def test_an_answer_that_was_cut_says_so(run: Run, server: Server) -> None:
    server.on("POST", PATH, streamed("abc", finish="length"))
    status, out, err = run("chat", "tiny", "x")
    assert (status, out) == (0, "abc\n")
    assert "cut off" in err


def test_a_conversation_remembers_resets_and_ends(run: Run, server: Server) -> None:
    server.on("POST", PATH, in_turn(streamed("一"), streamed("二"), streamed("三")))
    status, out, err = run("chat", "tiny", "--system", "S", typed="first\nsecond\n/what\n/reset\nthird\n/exit\nnever\n")
    assert status == 0
    assert all(answer in out for answer in "一二三")
    assert "There is no /what" in err
    said = [[message["content"] for message in body["messages"]] for body in sent(server)]
    assert said == [["S", "first"], ["S", "first", "一", "second"], ["S", "third"]]


def test_a_conversation_outlives_a_refusal_and_ends_at_the_end_of_input(run: Run, server: Server) -> None:
    server.on("POST", PATH, in_turn(refusal(400, "too long"), streamed("ok")))
    status, out, err = run("chat", "tiny", typed="long\nshort\n")
    assert status == 0
    assert "removed" in err
    assert "ok" in out
    assert [message["content"] for message in sent(server)[-1]["messages"]] == ["short"]


def test_an_unknown_model_ends_it_with_the_servers_sentence(run: Run, server: Server) -> None:
    server.on("POST", PATH, refusal(404, "The model 'x' does not exist."))
    status, _, err = run("chat", "x", typed="hello\n")
    assert status == 5
    assert "does not exist" in err
