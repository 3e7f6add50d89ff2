"""Bad datasets: what no method reads is refused at its upload, what one method cannot fails its job; with a place."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest

from service.controller.validation import validate_jobs
from service.queue.memory import MemoryJobQueue
from tests.fixtures.packed import gzip_bomb, parquet, zstd, zstd_bomb
from tests.fixtures.service import GOOD_JSONL, RunningApi, make_context, run_api, upload

Made = bytes | Callable[[], bytes]
LINE_BYTES = 100_000


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi]:
    with run_api(make_context(tmp_path_factory.mktemp("api"), max_line_bytes=LINE_BYTES)) as running:
        yield running


def nested(opening: str, closing: str, levels: int) -> bytes:
    return b'{"a":' + opening.encode() * levels + b"1" + closing.encode() * levels + b"}\n"


# (the fourth line, or the whole file where it is made by a function, and what the problem says)
REFUSED: dict[str, tuple[Made, str]] = {
    "NaN": (b'{"a":NaN}\n', "line 4: is not JSON at column 6"),
    "Infinity": (b'{"a":[Infinity]}\n', "line 4: is not JSON"),
    "minus Infinity": (b'{"a":-Infinity}\n', "line 4: is not JSON"),
    "a number beyond a float": (b'{"a":1e999}\n', "line 4: is not JSON"),
    "a high surrogate": (b'{"a":"\\ud83d"}\n', "line 4: is not JSON"),
    "a low surrogate": (b'{"a":"\\ude00 x"}\n', "line 4: is not JSON"),
    "a surrogate in UTF-8": (b'{"a":"\xed\xa0\x80"}\n', "line 4: is not UTF-8"),
    "a surrogate in a key": (b'{"\\ud800":1}\n', "line 4: is not JSON"),
    "a NUL": (b'{"a":"\0"}\n', "line 4: has a NUL byte at byte 7"),
    "an escaped NUL": (b'{"a":"\\u0000"}\n', "line 4: has an escaped NUL"),
    "an escaped NUL in a key": (b'{"\\u0000":1}\n', "line 4: has an escaped NUL"),
    "an integer of 65 bits": (b'{"a":9223372036854775808}\n', "line 4: has the number 9223372036854775808"),
    "an integer far below": (b'{"a":-99999999999999999999}\n', "line 4: has the number -9999999999"),
    "hundreds of digits": (b'{"a":' + b"7" * 300 + b"}\n", "line 4: has the number 7777"),
    "a key twice": (b'{"a":1,"a":2}\n', "line 4: has the key a twice"),
    "a key twice inside": (b'{"a":[{"b":{"c":1,"c":2}}]}\n', "line 4: has the key c twice"),
    "a key twice by an escape": (b'{"a":1,"\\u0061":2}\n', "line 4: has the key a twice"),
    "a key twice behind quotes": (b'{"a":"\\u0022","b":1,"a":2}\n', "line 4: has the key a twice"),
    "deep lists": (nested("[", "]", 101), "line 4: is nested deeper than 100"),
    "deep objects": (nested('{"a":', "}", 101), "line 4: is nested deeper than 100"),
    "abysmal lists": (nested("[", "]", 20_000), "line 4: is nested deeper than 100"),
    "unclosed depth": (b'{"a":' * 9000 + b"\n", "line 4: is nested deeper than 100"),
    "a huge line": (b'{"a":"' + b"x" * LINE_BYTES + b'"}\n', f"line 4: is {LINE_BYTES + 8} bytes long"),
    "a line without end": (b'{"a":"' + b"x" * 3_000_000, "line 4: is 3000006 bytes long"),
    "a list": (b"[1,2]\n", "line 4: is a list"),
    "a text": (b'"x"\n', "line 4: is a string"),
    "a number": (b"7\n", "line 4: is a number"),
    "null": (b"null\n", "line 4: is null"),
    "true": (b"true\n", "line 4: is true"),
    "two rows on a line": (b'{"a":1} {"a":2}\n', "line 4: is not JSON at column 9"),
    "a comma after the row": (b'{"a":1},\n', "line 4: is not JSON"),
    "a comma inside": (b'{"a":1,}\n', "line 4: is not JSON"),
    "single quotes": (b"{'a':1}\n", "line 4: is not JSON"),
    "no quotes": (b"{a:1}\n", "line 4: is not JSON"),
    "Python": (b'{"a":None}\n', "line 4: is not JSON"),
    "a comment": (b"// rows follow\n", "line 4: is not JSON"),
    "cut short": (b'{"a":"b', "line 4: is not JSON"),
    "a tab in a text": (b'{"a":"\t"}\n', "line 4: is not JSON"),
    "an unknown escape": (b'{"a":"\\x41"}\n', "line 4: is not JSON"),
    "Latin-1": ('{"a":"café"}\n'.encode("latin-1"), "line 4: is not UTF-8 (byte 0xe9 at byte 10)"),
    "GBK": ('{"a":"你好"}\n'.encode("gbk"), "line 4: is not UTF-8"),
    "a lone carriage return": (b'{"a":1}\r{"a":2}\n', "line 4: is not JSON"),
    "a second byte order mark": (b"\xef\xbb\xbf" + GOOD_JSONL, "line 4: begins with a byte order mark"),
    "UTF-16": (lambda: GOOD_JSONL.decode().encode("utf-16"), "line 1: the file is UTF-16"),
    "nothing": (lambda: b"", "it has no rows"),
    "blank lines": (lambda: b"\n \n\t\n", "it has no rows"),
    "CSV": (lambda: b"prompt,answer\na,b\n", "line 1: the file is a table (CSV)"),
    "a JSON array": (lambda: b'[\n{"a":1}\n]\n', "line 1: the file is a JSON array"),
    "a zip": (lambda: b"PK\x03\x04" + b"\0" * 99, "zip archive"),
    "a PDF": (lambda: b"%PDF-1.7\n", "PDF"),
    "SQLite": (lambda: b"SQLite format 3\0" + b"\0" * 99, "SQLite"),
    "xz": (lambda: b"\xfd7zXZ\0" + b"\0" * 99, "compressed with xz"),
    "bzip2": (lambda: b"BZh91AY&SY" + b"\0" * 99, "compressed with bzip2"),
    "a gzip bomb": (gzip_bomb, "more than 200 times"),
    "a zstd bomb": (zstd_bomb, "more than 200 times"),
    "a gzip bomb in gzip": (lambda: gzip.compress(gzip_bomb()), "compress the file once"),
    "gzip cut short": (lambda: gzip.compress(GOOD_JSONL)[:-5], "gzip data ends too early"),
    "gzip without content": (lambda: gzip.compress(b""), "it has no rows"),
    "gzip with a flipped bit": (lambda: gzip.compress(GOOD_JSONL)[:-8] + b"\0" * 8, "gzip data is damaged"),
    "gzip and a tail": (lambda: gzip.compress(GOOD_JSONL) + b"tail", "gzip data is damaged"),
    "a bad line in gzip": (lambda: gzip.compress(GOOD_JSONL + b'{"a":NaN}\n'), "line 4: is not JSON"),
    "zstd cut short": (lambda: zstd.compress(GOOD_JSONL)[:-5], "zstd data ends too early"),
    "zstd and a tail": (lambda: zstd.compress(GOOD_JSONL) + b"tail", "zstd data is damaged"),
    "a key twice in zstd": (lambda: zstd.compress(GOOD_JSONL + b'{"a":1,"a":1}\n'), "line 4: has the key a twice"),
    "parquet cut short": (lambda: parquet([{"text": "a"}])[:-2], "was cut short"),
    "parquet of its magic": (lambda: b"PAR1", "was cut short"),
    "parquet with a wild footer": (lambda: b"PAR1" + b"\xff" * 8 + b"PAR1", "longer than the file"),
    "parquet in gzip": (lambda: gzip.compress(parquet([{"text": "a"}])), "Parquet data stands"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_dataset_is_refused_with_its_place(api: RunningApi, client: httpx.Client, name: str) -> None:
    made, expected = REFUSED[name]
    blobs = [blob.key for blob in api.context.storage.list("")]
    answer = upload(client, made() if callable(made) else GOOD_JSONL + made, "数据.jsonl")
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["type"]) == ("invalid_file_format", "file", "invalid_request_error")
    assert error["message"].startswith("数据.jsonl has ")
    assert expected in error["message"]
    assert expected.rpartition(": ")[2] in error["problems"][0]["reason"]
    assert client.get("/files").json()["data"] == []
    assert [blob.key for blob in api.context.storage.list("")] == blobs


USER, ANSWER = {"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PROMPT = {"messages": [USER]}


def said(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


# (the method, its second row, the place that is named)
FAILED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no messages": ("supervised", {}, "messages: is missing"),
    "messages as text": ("supervised", {"messages": "hi"}, "messages: must be a list"),
    "no message": ("supervised", said(), "messages: is empty"),
    "a message as text": ("supervised", said("hi"), "messages[0]: must be an object"),
    "an unknown role": ("supervised", said({"role": "robot", "content": "x"}), 'messages[0].role: "robot"'),
    "a role of another type": ("supervised", said({"role": 7, "content": "x"}), "messages[0].role: 7"),
    "a role as a list": ("supervised", said({"role": ["user"], "content": "x"}), "messages[0].role: "),
    "no role": ("supervised", said({"content": "x"}, ANSWER), "messages[0].role: is missing"),
    "no content": ("supervised", said(USER, {"role": "assistant"}), "messages[1].content: is missing"),
    "null content": ("supervised", said({"role": "user", "content": None}, ANSWER), "messages[0].content: must be"),
    "content as a number": ("supervised", said({"role": "user", "content": 5}, ANSWER), "messages[0].content: must be"),
    "empty content": ("supervised", said({"role": "user", "content": ""}, ANSWER), "messages[0].content: is empty"),
    "blank content": ("supervised", said({"role": "user", "content": " \n"}, ANSWER), "messages[0].content: is empty"),
    "no parts": ("supervised", said({"role": "user", "content": []}, ANSWER), "messages[0].content: is empty"),
    "an image": (
        "supervised",
        said({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER),
        "messages[0].content[0].type: ",
    ),
    "no answer": ("supervised", said(USER), "messages: has no assistant message"),
    "nothing to learn": ("supervised", said(USER, ANSWER | {"weight": 0}), "messages: every assistant message"),
    "a half weight": ("supervised", said(USER, ANSWER | {"weight": 0.5}), "messages[1].weight: is 0.5"),
    "a weight of the user": ("supervised", said(USER | {"weight": 1}, ANSWER), "messages[0].weight: "),
    "an unknown key": ("supervised", said(USER, ANSWER, id=7), "id: is not a known key"),
    "an unknown key of a message": ("supervised", said(USER | {"mood": "x"}, ANSWER), "messages[0].mood: "),
    "an older format": ("supervised", {"prompt": "a", "completion": "b"}, "messages: is missing"),
    "calls as an object": ("supervised", said(USER, ANSWER | {"tool_calls": {}}), "messages[1].tool_calls: must be"),
    "arguments as an object": (
        "supervised",
        said(USER, {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": {}}}]}),
        "messages[1].tool_calls[0].function.arguments: must be a string",
    ),
    "an answer to no call": (
        "supervised",
        said(USER, {"role": "tool", "tool_call_id": "z", "content": "x"}, ANSWER),
        "messages[1].tool_call_id: ",
    ),
    "a call's id twice": (
        "supervised",
        said(USER, {"role": "assistant", "tool_calls": [CALL, CALL]}),
        "messages[1].tool_calls[1].id: ",
    ),
    "tools as text": ("supervised", said(USER, ANSWER, tools="f"), "tools: must be a list"),
    "text of another type": ("pretraining", {"text": 5}, "text: must be a string"),
    "empty text": ("pretraining", {"text": " "}, "text: is empty"),
    "no text": ("pretraining", {"txt": "a"}, "text: is missing"),
    "no prompt": ("dpo", {"preferred_output": [ANSWER], "non_preferred_output": [USER]}, "input: is missing"),
    "a prompt as text": ("dpo", {"input": "hi"}, "input: must be an object"),
    "one side alone": ("dpo", {"input": PROMPT, "preferred_output": [ANSWER]}, "non_preferred_output: is missing"),
    "the same twice": (
        "dpo",
        {"input": PROMPT, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]},
        "preferred_output and non_preferred_output: are the same",
    ),
    "an output of the user": (
        "orpo",
        {"input": PROMPT, "preferred_output": [USER], "non_preferred_output": [ANSWER]},
        "preferred_output[0].role: is user",
    ),
    "a prompt that ends with an answer": ("ppo", {"input": said(USER, ANSWER)}, "input.messages[1]: "),
    "a prompt of the system alone": (
        "grpo",
        {"input": said({"role": "system", "content": "x"})},
        "input.messages: has no user message",
    ),
    "a reference as a number": ("ppo", {"input": PROMPT, "reference": 42}, "reference: must be a string"),
    "a grader's prompt that ends with an answer": ("reinforcement", said(USER, ANSWER), "messages[1]: the prompt ends"),
    "no answer for the grader": ("reinforcement", said(USER, other="巴黎"), "答案: is missing, and the grader asks"),
    "no label": ("kto", {"input": PROMPT, "output": [ANSWER]}, "label: is missing"),
    "a label as text": ("kto", {"input": PROMPT, "output": [ANSWER], "label": "true"}, "label: must be true"),
    "one response": (
        "reward",
        {"input": PROMPT, "responses": [{"message": ANSWER, "rank": 1}]},
        "responses: has 1",
    ),
    "a rank of zero": (
        "reward",
        {"input": PROMPT, "responses": [{"message": ANSWER, "rank": 0}, {"message": ANSWER, "rank": 1}]},
        "responses[0].rank: is 0",
    ),
    "ties alone": (
        "reward",
        {"input": PROMPT, "responses": [{"message": ANSWER, "rank": 1}, {"message": ANSWER, "rank": 1}]},
        "responses: all have the same rank",
    ),
}
GOOD: dict[str, dict[str, Any]] = {
    "supervised": said(USER, ANSWER),
    "pretraining": {"text": "从前有座山"},
    "dpo": {
        "input": PROMPT,
        "preferred_output": [ANSWER],
        "non_preferred_output": [{"role": "assistant", "content": "哦"}],
    },
    "ppo": {"input": PROMPT},
    "kto": {"input": PROMPT, "output": [ANSWER], "label": True},
}
GOOD["reinforcement"] = said(USER, 答案="巴黎", line=3)
GRADER = {
    "type": "string_check",
    "name": "right",
    "operation": "like",
    "input": "{{sample.output_text}}",
    "reference": "{{ item.答案 }}",
}
GOOD |= {"orpo": GOOD["dpo"], "reward": GOOD["dpo"], "grpo": GOOD["ppo"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILED)
def test_a_row_of_another_method_fails_the_job_with_its_place(api: RunningApi, client: httpx.Client, name: str) -> None:
    method, row, place = FAILED[name]
    rows = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in (GOOD[method], row, GOOD[method]))
    file_id = upload(client, rows.encode(), "数据.jsonl").json()["id"]
    hyperparameters: dict[str, Any] = {"reward": {"function": "length", "parameters": {"target": 10}}}
    block: dict[str, Any] = {"hyperparameters": hyperparameters if method in ("ppo", "grpo") else {}}
    if method == "reinforcement":
        block["grader"] = GRADER
    order = {"model": "tiny", "training_file": file_id, "method": {"type": method, method: block}}
    made = client.post("/fine_tuning/jobs", json=order)
    assert made.status_code == 200, made.text
    validate_jobs(api.context, MemoryJobQueue())
    job = client.get(f"/fine_tuning/jobs/{made.json()['id']}").json()
    assert job["status"] == "failed"
    assert (job["error"]["code"], job["error"]["param"]) == ("invalid_training_file", "training_file")
    assert job["error"]["message"].startswith("数据.jsonl has ")
    assert f"line 2: {place}" in job["error"]["message"]
    assert not [blob.key for blob in api.context.storage.list("jobs")]


def test_there_are_more_than_a_hundred() -> None:
    assert len(REFUSED) + len(FAILED) > 100
