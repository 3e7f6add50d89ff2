"""`python -m trainer.programs.chat` as a program: orders in, answers out, faults told and survived."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.preloaded import start_preloaded

pytestmark = pytest.mark.integration


class Program:
    def __init__(self, folder: Path) -> None:
        self.log = (folder / "log").open("w+b")
        self.process = subprocess.Popen(
            start_preloaded().command("trainer.programs.chat"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            encoding="utf-8",
        )

    def send(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order, ensure_ascii=False) + "\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def until_end(self) -> list[dict[str, Any]]:
        events = [self.read()]
        while events[-1]["type"] not in ("done", "refused"):
            events.append(self.read())
        return events

    def close(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        status = self.process.wait(60)
        self.process.stdout.close()
        self.log.close()
        return status


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Generator[Program, None, None]:
    made = Program(tmp_path_factory.mktemp("chat"))
    yield made
    if made.process.returncode is None:
        made.process.kill()
        made.close()


def order(base: Path, ask_id: str, content: str = "你好", **sampling: Any) -> dict[str, Any]:
    drawn = {"max_tokens": 5, "temperature": 0, **sampling}
    messages = [{"role": "user", "content": content}]
    return {"type": "ask", "id": ask_id, "base": str(base), "messages": messages, "sampling": drawn}


def test_it_answers_refuses_cancels_and_ends_with_its_orders(program: Program, tiny_base: Path, tmp_path: Path) -> None:
    program.send(**order(tiny_base, "one"))
    events = program.until_end()
    assert [events[0]["type"], events[-2]["type"], events[-1]["type"]] == ["began", "ended", "done"]
    assert {event["id"] for event in events} == {"one"}

    program.send(**order(tiny_base, "two", "字" * 500))
    assert program.until_end()[-1]["code"] == "context_length_exceeded"
    program.send(**order(tmp_path, "three"))
    refused = program.until_end()[-1]
    assert (refused["code"], refused["fault"]) == ("invalid_base_model", True)

    program.send(**order(tiny_base, "four", max_tokens=500, logit_bias={"50": 100.0}))
    assert program.read()["type"] == "began"
    program.send(type="cancel", id="four")
    program.send(type="cancel", id="never-asked")
    ended = program.until_end()[-2]
    assert ended["finish_reason"] == "cancelled"
    assert ended["tokens"] < 500

    program.send(**order(tiny_base, "long", max_tokens=400, logit_bias={"50": 100.0}))
    assert program.read()["type"] == "began"
    program.send(type="pause", id="long")
    while program.read()["type"] != "paused":
        pass
    program.send(**order(tiny_base, "between"))
    assert {event["id"] for event in program.until_end()} == {"between"}
    program.send(type="resume", id="long")
    rest = program.until_end()
    assert (rest[0]["type"], {event["id"] for event in rest}) == ("resumed", {"long"})
    assert rest[-2]["tokens"] == 400

    program.send(**order(tiny_base, "dropped", max_tokens=400, logit_bias={"50": 100.0}))
    program.send(type="pause", id="dropped")
    while program.read()["type"] != "paused":
        pass
    program.send(type="cancel", id="dropped")
    program.send(type="resume", id="dropped")
    program.send(type="pause", id="never-asked")

    program.send(**order(tiny_base, "five"))
    again = program.until_end()
    assert [{**event, "id": ""} for event in again] == [{**event, "id": ""} for event in events]
    assert program.close() == 0
