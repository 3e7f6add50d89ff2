"""What other formats say beside the texts: it is converted, or refused, or listed with its count; never lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnish.cli import main
from burnish.datasets.conversion import Conversion
from tests.clients.datasets.conversions import Row, assistant, pair, ranking, user

SYSTEM = {"role": "system", "content": "你替图书馆说话。"}
ASK, TELL = user("你是谁?"), assistant("图书馆的前台。")
TALK = [ASK, TELL]
FUNCTIONS = [{"name": "opening_hours", "parameters": {"type": "object", "properties": {"day": {"type": "string"}}}}]
TOOLS = [{"type": "function", "function": FUNCTIONS[0]}]


def converted(conversion: Conversion, *rows: Row) -> list[Row]:
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    return [json.loads(line) for line in conversion.lines("rows.jsonl", [data])]


def call(name: str, arguments: str = '{"day": "周一"}') -> Row:
    return {"id": name, "type": "function", "function": {"name": "opening_hours", "arguments": arguments}}


# What has a place: (method, the row, the row that it makes)
KEPT: dict[str, tuple[str, Row, Row]] = {
    "an older function call, its result and its functions": (
        "supervised",
        {
            "messages": [
                ASK,
                {"role": "assistant", "content": "我查查。", "function_call": call("x")["function"]},
                {"role": "function", "name": "opening_hours", "content": "九点"},
                TELL,
            ],
            "functions": FUNCTIONS,
        },
        {
            "messages": [
                ASK,
                {"role": "assistant", "content": "我查查。", "tool_calls": [call("call_1_0")]},
                {"role": "tool", "content": "九点", "name": "opening_hours", "tool_call_id": "call_1_0"},
                TELL,
            ],
            "tools": TOOLS,
        },
    ),
    "calls without ids": (
        "supervised",
        {
            "messages": [
                ASK,
                {"role": "assistant", "tool_calls": [{"function": call("x")["function"]}, call("x")["function"]]},
                {"role": "tool", "content": "九点"},
                {"role": "tool", "content": "十点"},
                TELL,
            ]
        },
        {
            "messages": [
                ASK,
                {"role": "assistant", "tool_calls": [call("call_1_0"), call("call_1_1")]},
                {"role": "tool", "content": "九点", "tool_call_id": "call_1_0"},
                {"role": "tool", "content": "十点", "tool_call_id": "call_1_1"},
                TELL,
            ]
        },
    ),
    "a refusal in place of content": (
        "supervised",
        {"messages": [ASK, {"role": "assistant", "content": None, "refusal": "我不能说。"}]},
        {"messages": [ASK, assistant("我不能说。")]},
    ),
    "one call at a time": (
        "supervised",
        {"messages": TALK, "tools": TOOLS, "parallel_tool_calls": False},
        {"messages": TALK, "tools": TOOLS, "parallel_tool_calls": False},
    ),
    **{
        f"{key} of alpaca": (
            "supervised",
            {"instruction": "你是谁?", "output": "图书馆的前台。", key: SYSTEM["content"]},
            {"messages": [SYSTEM, *TALK]},
        )
        for key in ("system", "system_prompt", "system_message")
    },
    "a system prompt that the messages have, too": (
        "supervised",
        {"messages": [SYSTEM, *TALK], "system_prompt": SYSTEM["content"]},
        {"messages": [SYSTEM, *TALK]},
    ),
    "a history of a completion": (
        "supervised",
        {"prompt": "冬天呢?", "completion": "到四点。", "history": [["开到几点?", "到九点。"]]},
        {"messages": [user("开到几点?"), assistant("到九点。"), user("冬天呢?"), assistant("到四点。")]},
    ),
    "a history of a pair": (
        "dpo",
        {"prompt": "冬天呢?", "chosen": "四点", "rejected": "五点", "history": [["几点?", "九点"]]},
        pair([user("几点?"), assistant("九点"), user("冬天呢?")], [assistant("四点")], [assistant("五点")]),
    ),
    "a system prompt of whole conversations": (
        "dpo",
        {"system": SYSTEM["content"], "chosen": TALK, "rejected": [ASK, assistant("不知道")]},
        pair([SYSTEM, ASK], [TELL], [assistant("不知道")]),
    ),
    "a system prompt of transcripts": (
        "dpo",
        {
            "system": SYSTEM["content"],
            "chosen": "\n\nHuman: 你是谁?\n\nAssistant: 图书馆的前台。",
            "rejected": "\n\nHuman: 你是谁?\n\nAssistant: 不知道",
        },
        pair([SYSTEM, ASK], [TELL], [assistant("不知道")]),
    ),
    "a prompt that is longer than the conversations": (
        "dpo",
        {"prompt": [SYSTEM, user("早"), assistant("早!"), ASK], "chosen": TALK, "rejected": [ASK, assistant("不知道")]},
        pair([SYSTEM, user("早"), assistant("早!"), ASK], [TELL], [assistant("不知道")]),
    ),
    "a prompt that is the beginning of the conversations": (
        "dpo",
        {
            "prompt": "早",
            "chosen": [user("早"), assistant("早!"), *TALK],
            "rejected": [user("早"), assistant("早!"), ASK, assistant("不知道")],
        },
        pair([user("早"), assistant("早!"), ASK], [TELL], [assistant("不知道")]),
    ),
    "scores as text": (
        "reward",
        {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": "8.5", "score_rejected": "2"},
        ranking("q", ("a", 1, 8.5), ("b", 2, 2.0)),
    ),
    "a context of a question": (
        "supervised",
        {"question": "开到几点?", "context": "图书馆九点关门。", "answer": "九点。"},
        {"messages": [user("开到几点?\n图书馆九点关门。"), assistant("九点。")]},
    ),
    "whatever a grader may need": (
        "reinforcement",
        {"messages": [ASK], "答案": "前台", "facts": {"a": [1]}, "reasoning": "因为", "id": 7},
        {"messages": [ASK], "答案": "前台", "facts": {"a": [1]}, "reasoning": "因为", "id": 7},
    ),
    "a bad answer is no reference": (
        "ppo",
        {"messages": TALK, "label": False},
        {"input": {"messages": [ASK]}},
    ),
}

REFUSED: dict[str, tuple[str, Row, str]] = {
    **{
        f"{key} of a row": (
            "supervised",
            {"messages": TALK, key: ["树.jpg"]},
            f"{key}: cannot be trained on, only text",
        )
        for key in ("image", "images", "videos", "audios")
    },
    "images of a prompt for a grader": (
        "reinforcement",
        {"messages": [ASK], "images": ["树.jpg"]},
        "images: cannot be",
    ),
    "images of a turn": ("supervised", {"messages": [ASK | {"images": ["x"]}, TELL]}, "messages[].images: cannot be"),
    **{
        f"{key} of an answer": (
            "supervised",
            {"messages": [ASK, TELL | {key: "想一想"}]},
            f"messages[].{key}: has no place of its own in a row",
        )
        for key in ("reasoning_details", "chain_of_thought")
    },
    "reasoning of a row": ("supervised", {"question": "a", "answer": "b", "reasoning": "c"}, "reasoning: has no place"),
    "a history beside messages": ("supervised", {"messages": TALK, "history": [["a", "b"]]}, "history: would be left"),
    "a context beside messages": ("supervised", {"messages": TALK, "context": "书"}, "context: would be left out here"),
    "a context of a prompt in messages": (
        "supervised",
        {"prompt": [ASK], "completion": "b", "context": "书"},
        "context: would be left out here",
    ),
    "a refusal beside content": (
        "supervised",
        {"messages": [ASK, TELL | {"refusal": "不"}]},
        "messages[].refusal: would",
    ),
    "two system prompts": (
        "supervised",
        {"messages": TALK, "system": "a", "system_prompt": "b"},
        "system and system_prompt: are different",
    ),
    "a prompt of another conversation": (
        "dpo",
        {"prompt": "别的", "chosen": TALK, "rejected": [ASK, assistant("不知道")]},
        "prompt: is not where the conversations in chosen and rejected begin",
    ),
    "a score in words": (
        "reward",
        {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": "好", "score_rejected": 2},
        'score_chosen: is "好"; use a number',
    ),
    "a bad answer to imitate": ("supervised", {"messages": TALK, "label": False}, "its answer is bad"),
    "a row that is not to be learned": (
        "supervised",
        {"messages": TALK, "weight": 0},
        "weight: is 0; a row has no weight",
    ),
    "a row that is not trained": ("supervised", {"messages": TALK, "train": False}, "train: is false; a row has no"),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_has_a_place_is_kept(name: str) -> None:
    method, row, wanted = KEPT[name]
    conversion = Conversion(method)
    assert converted(conversion, row) == [wanted], conversion.refused
    assert set(conversion.left_out) <= {"label"}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_a_meaning_and_no_place_is_refused(name: str) -> None:
    method, row, reason = REFUSED[name]
    conversion = Conversion(method)
    assert converted(conversion, row) == []
    assert reason in conversion.refused[0][1]


def test_every_key_that_is_left_out_is_counted() -> None:
    conversion = Conversion("supervised")
    odd = {"messages": [ASK | {"id": 1}, TELL | {"id": 2, "tool_calls": [call("c") | {"index": 0}]}], "来源": "网"}
    made = converted(
        conversion, odd, odd, {"messages": TALK, "来源": "书", "empty": [], "nothing": None}, {"messages": []}
    )
    assert len(made) == 3
    assert conversion.left_out == {"messages[].id": 4, "messages[].tool_calls[].index": 2, "来源": 3}


def test_one_score_without_the_other_is_left_out() -> None:
    conversion = Conversion("reward")
    converted(conversion, {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 3})
    assert conversion.left_out == {"score_chosen": 1}


def test_scores_and_labels_that_a_method_does_not_use_are_counted() -> None:
    conversion = Conversion("dpo")
    converted(conversion, {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 3, "score_rejected": 1})
    assert conversion.left_out == {"scores": 1}
    conversion = Conversion("supervised")
    converted(conversion, {"messages": TALK, "label": True})
    assert conversion.left_out == {"label": 1}


def test_keys_that_differ_in_every_row_do_not_fill_the_memory() -> None:
    conversion = Conversion("supervised")
    converted(conversion, *({"messages": TALK, f"键{number}": 1} for number in range(300)))
    assert len(conversion.left_out) == 201
    assert conversion.left_out["other keys"] == 100


def test_the_command_lists_the_keys_that_are_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "行.jsonl"
    source.write_text("\n".join(json.dumps({"messages": TALK, "来源": "网", "id": n}) for n in range(1200)))
    assert main(["data", "convert", str(source), "--to", "supervised", "-o", str(tmp_path / "out.jsonl")]) == 0
    assert "Keys left out, with their counts: 来源 (1,200), id (1,200)." in capfd.readouterr().err
