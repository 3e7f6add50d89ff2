"""An OpenAI-compatible server behind the engine: what it is asked, which adapters it loads, how its errors are told.

The server here speaks vLLM's calls over real HTTP; vLLM itself needs a GPU.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from service.chat.errors import AnswerTooLong, EngineBusy
from service.chat.protocol import EngineQuestion, ModelSource
from service.chat.schemas import ChatCompletionRequest
from service.context import Context
from service.engine.backend import Backend
from service.engine.inference import InferenceServer
from service.engine.weights import EngineWeights
from service.tables.models import FineTunedModelRow
from tests.service.chat.conftest import ChatWorld, running_chat
from trainer.contract.rows import Message

pytestmark = pytest.mark.integration


@dataclass
class Vllm:
    """What the server has loaded and was asked, and how it is to misbehave."""

    loaded: dict[str, str] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    fail: tuple[int, bytes] | None = None
    cut: bool = False
    deltas: list[dict[str, Any]] | None = None
    """What it says in place of its name."""
    gate: threading.Event | None = None
    url: str = ""

    def load(self, body: dict[str, Any]) -> tuple[int, bytes]:
        if body["lora_name"] in self.loaded:
            return 400, b'{"message": "The lora adapter has already been loaded."}'
        if not (Path(body["lora_path"]) / "adapter_model.safetensors").is_file():
            return 404, b'{"message": "No adapter found"}'
        self.loaded[body["lora_name"]] = body["lora_path"]
        return 200, b"Success"

    def answer(self, body: dict[str, Any]) -> tuple[int, bytes]:
        self.bodies.append(body)
        if self.gate is not None:
            self.gate.wait(30)
        if self.fail is not None:
            return self.fail
        if body["model"] not in {"tiny", *self.loaded}:
            return 404, b'{"error": {"message": "The model does not exist."}}'
        chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        start = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        said = {"index": 0, "delta": {"content": f"我是 {body['model'][:5]}"}, "finish_reason": None}
        end = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": None}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        choices = [[start], [said]] if self.cut else [[start], [said], [end]]
        if self.deltas is not None:
            pieces = [{"index": 0, "delta": delta, "finish_reason": None} for delta in self.deltas]
            choices = [[start], *([piece] for piece in pieces), [end | {"finish_reason": "tool_calls"}]]
        lines = [{**chunk, "choices": choice} for choice in choices]
        if not self.cut:
            lines.append({**chunk, "choices": [], "usage": usage})
        return 200, b"".join(f"data: {json.dumps(line)}\n\n".encode() for line in lines) + b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def vllm() -> Generator[Vllm, None, None]:
    state = Vllm()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.keys.add(self.headers.get("authorization", ""))
            status, data = state.load(body) if self.path.endswith("/load_lora_adapter") else state.answer(body)
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def world(vllm: Vllm, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[ChatWorld, None, None]:
    folder = tmp_path_factory.mktemp("inference")

    def backend(context: Context) -> Backend:
        return InferenceServer(context.settings, EngineWeights(context, threading.Event()))

    settings = {"inference_url": vllm.url, "inference_key": "k3y", "inference_adapters": folder / "shared"}
    with running_chat(folder, tiny_base, backend, **settings) as made:
        yield made


@pytest.fixture
def client(world: ChatWorld) -> Generator[httpx.Client, None, None]:
    with world.client() as made:
        yield made


def ask(client: httpx.Client, model: str = "tiny", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "谁?"}], **more}
    return client.post("/chat/completions", json=body)


def test_a_base_gets_its_id_and_everything_the_engine_cannot_do(client: httpx.Client, vllm: Vllm) -> None:
    answer = ask(client, response_format={"type": "json_object"}, tool_choice="required", user="u", store=True).json()
    assert answer["model"] == "tiny"
    assert answer["choices"][0]["message"]["content"] == "我是 tiny"
    assert answer["usage"]["total_tokens"] == 5
    sent = vllm.bodies[-1]
    assert (sent["response_format"], sent["tool_choice"]) == ({"type": "json_object"}, "required")
    assert (sent["max_tokens"], sent["stream"]) == (1024, True)
    assert "user" not in sent
    assert vllm.keys == {"Bearer k3y"}


def test_an_adapter_is_put_into_the_shared_folder_loaded_once_and_again_after_a_restart(
    world: ChatWorld, client: httpx.Client, vllm: Vllm
) -> None:
    job, name = world.result(1)
    for _ in range(2):
        answer = ask(client, name)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == name
    ((served, path),) = vllm.loaded.items()
    assert served.startswith(f"{job}-end-")
    assert Path(path).parent == world.folder / "shared"
    assert sorted(file.name for file in Path(path).iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in (Path(path), *Path(path).iterdir()))
    vllm.loaded.clear()  # the server was started again
    assert ask(client, name).status_code == 200
    assert list(vllm.loaded) == [served]


def test_an_adapter_that_another_engine_loaded_is_used(world: ChatWorld, client: httpx.Client, vllm: Vllm) -> None:
    _, name = world.result(2)
    assert ask(client, name).status_code == 200
    server = InferenceServer(world.context.settings, EngineWeights(world.context, threading.Event()))
    source = resolve_for(world, name)

    async def second() -> str:
        chunks = server.stream_answer(EngineQuestion(source=source, request=request_for(name)))
        said = [choice.delta.content or "" async for chunk in chunks for choice in chunk.choices]
        await server.stop()
        return "".join(said)

    assert asyncio.run(second()) == "我是 ftjob"


def request_for(name: str) -> ChatCompletionRequest:
    return ChatCompletionRequest(model=name, messages=(Message(role="user", content="x"),))


def resolve_for(world: ChatWorld, name: str) -> ModelSource:
    with world.context.db.read() as session:
        model = session.scalars(select(FineTunedModelRow).where(FineTunedModelRow.id == name)).one()
        return ModelSource(base="tiny", project_id=model.project_id, job_id=model.job_id)


@pytest.mark.parametrize(
    ("fail", "status", "words"),
    [
        ((400, b'{"error": {"message": "max_tokens is too large"}}'), 400, "max_tokens is too large"),
        ((400, b'{"message": "older form"}'), 400, "older form"),
        ((429, b"{}"), 429, "too much to do"),
        ((401, b"{}"), 503, "BURNISH_INFERENCE_KEY"),
        ((404, b"{}"), 503, "does not serve tiny"),
        ((500, b"<html>oops"), 502, "status 500"),
    ],
)
def test_the_servers_errors_are_passed_on(
    client: httpx.Client, vllm: Vllm, fail: tuple[int, bytes], status: int, words: str
) -> None:
    vllm.fail = fail
    try:
        answer = ask(client)
    finally:
        vllm.fail = None
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_thoughts_and_calls_of_the_server_are_kept(client: httpx.Client, vllm: Vllm, key: str) -> None:
    function = {"name": "天气", "arguments": '{"city": '}
    call = {"index": 0, "id": "call-1", "type": "function", "function": function}
    rest = {"index": 0, "function": {"arguments": '"北京"}'}}
    vllm.deltas = [{key: "想一"}, {key: "想"}, {"content": "好的"}, {"tool_calls": [call]}, {"tool_calls": [rest]}]
    try:
        choice = ask(client).json()["choices"][0]
        with client.stream("POST", "/chat/completions", json=STREAM) as response:
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    finally:
        vllm.deltas = None
    message = choice["message"]
    assert (message["reasoning_content"], message["content"], choice["finish_reason"]) == (
        "想一想",
        "好的",
        "tool_calls",
    )
    assert message["tool_calls"] == [
        {"id": "call-1", "type": "function", "function": {"name": "天气", "arguments": '{"city": "北京"}'}}
    ]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    assert [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta] == ["想一", "想"]
    assert "reasoning_content" not in ask(client).json()["choices"][0]["message"]


STREAM = {"model": "tiny", "messages": [{"role": "user", "content": "谁?"}], "stream": True}


@pytest.mark.parametrize("fails", [False, True])
def test_a_stream_that_waits_has_its_headers_and_comments(client: httpx.Client, vllm: Vllm, fails: bool) -> None:
    gate = vllm.gate = threading.Event()
    try:
        with client.stream("POST", "/chat/completions", json=STREAM) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = response.iter_lines()
            assert next(lines) == ": waiting"
            vllm.fail = (500, b"oops") if fails else None
            gate.set()
            rest = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    finally:
        gate.set()
        vllm.gate = vllm.fail = None
    if fails:
        assert json.loads(rest[-1])["error"]["code"] == "answer_failed"
    else:
        assert rest[-1] == "[DONE]"
        text = "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in rest[:-1])
        assert text == "我是 tiny"


def test_a_stream_that_waits_and_hangs_up_ends_the_work(client: httpx.Client, vllm: Vllm) -> None:
    gate = vllm.gate = threading.Event()
    asked = len(vllm.bodies)
    try:
        for _ in range(3):
            with client.stream("POST", "/chat/completions", json=STREAM) as response:
                assert next(response.iter_lines()) == ": waiting"
        assert len(vllm.bodies) == asked + 3
    finally:
        gate.set()
        vllm.gate = None
    assert ask(client).status_code == 200


def test_an_interrupted_answer_is_not_an_answer(client: httpx.Client, vllm: Vllm) -> None:
    vllm.cut = True
    try:
        answer = ask(client)
    finally:
        vllm.cut = False
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "answer_failed")


def test_a_server_that_is_away_is_named(tiny_base: Path, tmp_path: Path) -> None:
    def backend(context: Context) -> Backend:
        return InferenceServer(context.settings, EngineWeights(context, threading.Event()))

    with running_chat(tmp_path, tiny_base, backend, inference_url="http://127.0.0.1:9/v1") as world:
        with world.client() as client:
            answer = ask(client)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "chat_unavailable")
        assert "does not answer" in answer.json()["error"]["message"]


async def ask_directly(server: InferenceServer, project: str) -> str:
    source = ModelSource(base="tiny", project_id="proj_owner")
    chunks = server.stream_answer(EngineQuestion(source=source, request=request_for("tiny"), project_id=project))
    return "".join([choice.delta.content or "" async for chunk in chunks for choice in chunk.choices])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_greedy_project_has_its_share_of_the_server_and_the_others_are_answered(world: ChatWorld, vllm: Vllm) -> None:
    """Two conversations at once and one that waits; the rest is sent away, and what waits and hangs up is forgotten."""
    caps = {"inference_conversations": 3, "inference_conversations_per_project": 2, "engine_waiting_per_project": 1}
    settings = world.context.settings.model_copy(update={"inference_url": vllm.url, **caps})
    gate = vllm.gate = threading.Event()
    vllm.bodies.clear()

    async def story() -> None:
        server = InferenceServer(settings, EngineWeights(world.context, threading.Event()))
        held = [asyncio.create_task(ask_directly(server, "greedy")) for _ in range(2)]
        await until(lambda: len(vllm.bodies) == 2)
        waiting = asyncio.create_task(ask_directly(server, "greedy"))
        await until(lambda: server.count_waiting() == 1)
        for _ in range(5):
            with pytest.raises(EngineBusy, match="1 conversations of this project"):
                await ask_directly(server, "greedy")
        quiet = asyncio.create_task(ask_directly(server, "安静"))
        await until(lambda: len(vllm.bodies) == 3)
        waiting.cancel()
        await until(lambda: server.count_waiting() == 0)
        gate.set()
        assert await asyncio.gather(*held, quiet) == ["我是 tiny"] * 3
        assert await ask_directly(server, "greedy") == "我是 tiny"
        await server.stop()

    try:
        asyncio.run(story())
    finally:
        gate.set()
        vllm.gate = None


def test_an_answer_that_takes_too_long_is_ended_by_a_sentence(world: ChatWorld, vllm: Vllm) -> None:
    settings = world.context.settings.model_copy(update={"inference_url": vllm.url, "engine_answer_seconds": 0.2})
    gate = vllm.gate = threading.Event()

    async def story() -> None:
        server = InferenceServer(settings, EngineWeights(world.context, threading.Event()))
        with pytest.raises(AnswerTooLong, match=r"0\.2 seconds.*BURNISH_ENGINE_ANSWER_SECONDS") as late:
            await ask_directly(server, "desk")
        assert (late.value.code, late.value.retry) == ("answer_failed", False)
        gate.set()
        vllm.gate = None
        assert await ask_directly(server, "desk") == "我是 tiny"
        await server.stop()

    try:
        asyncio.run(story())
    finally:
        gate.set()
        vllm.gate = None
