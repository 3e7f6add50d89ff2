"""Rows of other formats, and what the converters make of them, for tests."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def user(content: str) -> Row:
    return {"role": "user", "content": content}


def assistant(content: str) -> Row:
    return {"role": "assistant", "content": content}


SYSTEM = {"role": "system", "content": "简洁。"}
CHOSEN = "\n\nHuman: 你好 \n\nAssistant: 您好!\n\nHuman: 首都?\n\nAssistant: باريس 😀\n"
REJECTED = "\n\nHuman: 你好 \n\nAssistant: 您好!\n\nHuman: 首都?\n\nAssistant: 里昂"
HH_PROMPT = [user("你好 "), assistant("您好!"), user("首都?")]
CALL = '{"name": "weather", "arguments": {"城市": "北京"}}'
CALLS = [{"id": "call_1_0", "type": "function", "function": {"name": "weather", "arguments": '{"城市": "北京"}'}}]


def pair(prompt: list[Row], better: list[Row], worse: list[Row]) -> Row:
    return {"input": {"messages": prompt}, "preferred_output": better, "non_preferred_output": worse}


def ranking(prompt: str, *responses: tuple[str, int] | tuple[str, int, float]) -> Row:
    ranked: list[Row] = []
    for text, rank, *score in responses:
        ranked.append({"message": assistant(text), "rank": rank} | ({"score": score[0]} if score else {}))
    return {"input": {"messages": [user(prompt)]}, "responses": ranked}


HH_PAIR = pair(HH_PROMPT, [assistant("باريس 😀\n")], [assistant("里昂")])
QUESTION_AND_ANSWER = [user("a"), assistant("b")]

# (format, method, the row, the rows that it makes)
CONVERSIONS: list[tuple[str, str, Row, list[Row]]] = [
    (
        "alpaca",
        "supervised",
        {"instruction": "翻译", "input": "قلب", "output": "心 ❤️", "id": 7},
        [{"messages": [user("翻译\nقلب"), assistant("心 ❤️")]}],
    ),
    (
        "alpaca",
        "supervised",
        {"instruction": "c", "input": "", "output": "d", "system": "简洁。", "history": [["a", "b"]]},
        [{"messages": [SYSTEM, user("a"), assistant("b"), user("c"), assistant("d")]}],
    ),
    (
        "alpaca",
        "ppo",
        {"instruction": "a", "output": "b"},
        [{"input": {"messages": [user("a")]}, "reference": "b"}],
    ),
    (
        "alpaca",
        "kto",
        {"instruction": "a", "output": "b", "kto_tag": False},
        [{"input": {"messages": [user("a")]}, "output": [assistant("b")], "label": False}],
    ),
    (
        "sharegpt",
        "supervised",
        {"conversations": [{"from": "human", "value": "你"}, {"from": "gpt", "value": "我"}], "system": "简洁。"},
        [{"messages": [SYSTEM, user("你"), assistant("我")]}],
    ),
    (
        "sharegpt",
        "supervised",
        {
            "conversations": [
                {"from": "human", "value": "天气"},
                {"from": "function_call", "value": CALL},
                {"from": "observation", "value": "晴"},
                {"from": "gpt", "value": "晴天"},
            ],
            "tools": '[{"name": "weather", "description": "d", "parameters": {}}]',
        },
        [
            {
                "messages": [
                    user("天气"),
                    {"role": "assistant", "tool_calls": CALLS},
                    {"role": "tool", "content": "晴", "tool_call_id": "call_1_0"},
                    assistant("晴天"),
                ],
                "tools": [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": {}}}],
            }
        ],
    ),
    (
        "sharegpt",
        "kto",
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "label": True},
        [{"input": {"messages": [user("a")]}, "output": [assistant("b")], "label": True}],
    ),
    (
        "sharegpt-pairs",
        "dpo",
        {
            "conversations": [{"from": "system", "value": "简洁。"}, {"from": "human", "value": "首都?"}],
            "chosen": {"from": "gpt", "value": "باريس"},
            "rejected": {"from": "gpt", "value": "里昂"},
        },
        [pair([SYSTEM, user("首都?")], [assistant("باريس")], [assistant("里昂")])],
    ),
    (
        "hh-rlhf",
        "dpo",
        {"chosen": CHOSEN, "rejected": REJECTED},
        [pair(HH_PROMPT, [assistant("باريس 😀\n")], [assistant("里昂")])],
    ),
    (
        "hh-rlhf",
        "reward",
        {"chosen": CHOSEN, "rejected": "\n\nHuman: 你好 \n\nAssistant: 走开。\n\nHuman: 为什么?\n\nAssistant: 不。"},
        [
            {
                "input": {"messages": [user("你好 ")]},
                "responses": [
                    {"messages": [assistant("您好!"), user("首都?"), assistant("باريس 😀\n")], "rank": 1},
                    {"messages": [assistant("走开。"), user("为什么?"), assistant("不。")], "rank": 2},
                ],
            }
        ],
    ),
    (
        "pairs",
        "orpo",
        {"prompt": "首都?", "chosen": "باريس", "rejected": "里昂", "system": "简洁。"},
        [pair([SYSTEM, user("首都?")], [assistant("باريس")], [assistant("里昂")])],
    ),
    (
        "pairs",
        "dpo",
        {"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("c")]},
        [pair([user("a")], [assistant("b")], [assistant("c")])],
    ),
    (
        "pairs",
        "reward",
        {
            "prompt": "a",
            "chosen": [user("a"), assistant("b")],
            "rejected": [user("a"), assistant("c")],
            "score_chosen": 9,
            "score_rejected": 2.5,
        },
        [ranking("a", ("b", 1, 9), ("c", 2, 2.5))],
    ),
    (
        "pairs",
        "dpo",
        {"prompt": "\n\nHuman: 你好 \n\nAssistant:", "chosen": " b", "rejected": " c"},
        [pair([user("你好 ")], [assistant(" b")], [assistant(" c")])],
    ),
    (
        "pairs",
        "dpo",
        {"instruction": "a", "input": "x", "chosen": "b", "rejected": "c"},
        [pair([user("a\nx")], [assistant("b")], [assistant("c")])],
    ),
    (
        "pairs",
        "kto",
        {"question": "a", "chosen": "b", "rejected": "c"},
        [
            {"input": {"messages": [user("a")]}, "output": [assistant("b")], "label": True},
            {"input": {"messages": [user("a")]}, "output": [assistant("c")], "label": False},
        ],
    ),
    (
        "pairs",
        "supervised",
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        [{"messages": [user("a"), assistant("b")]}],
    ),
    ("pairs", "grpo", {"prompt": "a", "chosen": "b", "rejected": "c"}, [{"input": {"messages": [user("a")]}}]),
    (
        "ratings",
        "reward",
        {
            "source": "s",
            "instruction": "问",
            "completions": [
                {"model": "x", "response": "乙", "overall_score": 10, "annotations": {"a": {"Rating": "2"}}},
                {
                    "response": "甲",
                    "overall_score": 1,
                    "annotations": {"a": {"Rating": "5"}, "b": {"Rating": "N/A"}, "c": {"Rating": "4"}},
                },
                {"response": "丙", "annotations": {"a": {"Rating": "2"}}},
            ],
        },
        [ranking("问", ("甲", 1, 4.5), ("乙", 2, 2.0), ("丙", 2, 2.0))],
    ),
    (
        "ratings",
        "reward",
        {"prompt": "q", "responses": ["a", "b"], "scores": [1, 3]},
        [ranking("q", ("b", 1, 3.0), ("a", 2, 1.0))],
    ),
    (
        "ratings",
        "reward",
        {"prompt": "\n\nHuman: q\n\nAssistant: ", "answers": [{"answer": "a", "rank": 4}, {"answer": "b", "rank": 1}]},
        [ranking("q", ("b", 1), ("a", 2))],
    ),
    (
        "ratings",
        "dpo",
        {
            "prompt": "q",
            "completions": [{"text": text, "score": score} for text, score in (("a", 1), ("b", 3), ("c", 2))],
        },
        [pair([user("q")], [assistant("b")], [assistant("a")])],
    ),
    *(
        (
            "chat",
            "supervised",
            {"messages": [user("a"), assistant("b") | {key: "想一想"}]},
            [{"messages": [user("a"), assistant("b") | {"reasoning_content": "想一想"}]}],
        )
        for key in ("reasoning_content", "reasoning", "thinking")
    ),
    (
        "chat",
        "grpo",
        {"messages": [user("a") | {"name": None, "id": 3}, assistant("b")], "source": "x"},
        [{"input": {"messages": [user("a")]}, "reference": "b"}],
    ),
    (
        "chat",
        "supervised",
        {
            "messages": [
                user("a") | {"tool_calls": None, "weight": None},
                assistant("b") | {"tool_calls": [], "reasoning_content": None, "annotations": None},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "strict": None, "parameters": {"x": None}}}],
            "functions": None,
        },
        [
            {
                "messages": [user("a"), assistant("b")],
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            }
        ],
    ),
    (
        "completions",
        "reinforcement",
        {"prompt": "法国的首都是哪里?", "completion": "巴黎"},
        [{"messages": [user("法国的首都是哪里?")], "reference": "巴黎"}],
    ),
    ("completions", "supervised", {"prompt": "a", "completion": "b"}, [{"messages": [user("a"), assistant("b")]}]),
    (
        "completions",
        "kto",
        {"prompt": [user("a")], "completion": [assistant("b")], "label": True},
        [{"input": {"messages": [user("a")]}, "output": [assistant("b")], "label": True}],
    ),
    ("completions", "ppo", {"prompt": "写诗"}, [{"input": {"messages": [user("写诗")]}}]),
    ("text", "pretraining", {"text": "从前 قصة 😀\n", "url": "u"}, [{"text": "从前 قصة 😀\n"}]),
    ("text", "pretraining", {"content": "c"}, [{"text": "c"}]),
]

# (format, method, the row, a part of the reason)
REFUSED: list[tuple[str, str, Row, str]] = [
    ("alpaca", "supervised", {"instruction": 1, "output": "x"}, "instruction: must be a string, not a number"),
    ("alpaca", "supervised", {"instruction": "a", "output": ""}, "messages[1].content: is empty"),
    (
        "alpaca",
        "supervised",
        {"instruction": "a", "output": "b", "history": [["x"]]},
        "history[0]: must be a list",
    ),
    ("alpaca", "supervised", {"instruction": "a", "output": "b", "history": "x"}, "history: must be a list"),
    ("alpaca", "dpo", {"instruction": "a", "output": "b"}, "no answers to compare"),
    ("alpaca", "kto", {"instruction": "a", "output": "b"}, "no label"),
    ("alpaca", "kto", {"instruction": "a", "output": "b", "kto_tag": "yes"}, "kto_tag: must be true or false"),
    ("alpaca", "pretraining", {"instruction": "a", "output": "b"}, "pretraining learns from plain text"),
    ("alpaca", "supervised", {"text": "b"}, "is not a row of alpaca: its keys are text"),
    ("sharegpt", "supervised", {"conversations": []}, "conversations: is empty"),
    ("sharegpt", "supervised", {"conversations": "x"}, "conversations: must be a list of messages, not a string"),
    ("sharegpt", "supervised", {"conversations": [{"x": 1}]}, "conversations[0]: has neither from and value nor role"),
    ("sharegpt", "supervised", {"conversations": [{"from": "alien", "value": "x"}]}, 'conversations[0].from: "alien"'),
    (
        "sharegpt",
        "supervised",
        {"conversations": [{"from": "gpt", "value": 1}]},
        "conversations[0].value: must be",
    ),
    ("sharegpt", "supervised", {"conversations": [{"from": "gpt"}]}, "conversations[0].value: is missing"),
    ("sharegpt", "supervised", {"conversations": ["hi"]}, "conversations[0]: must be a message, not a string"),
    ("sharegpt", "supervised", {"conversations": [{"from": "observation", "value": "x"}]}, "answers no function_call"),
    (
        "sharegpt",
        "supervised",
        {"conversations": [{"from": "function_call", "value": "{"}]},
        "not JSON of a function call",
    ),
    (
        "sharegpt",
        "supervised",
        {"conversations": [{"from": "function_call", "value": "[1]"}]},
        "with name and arguments",
    ),
    ("sharegpt", "supervised", {"conversations": [{"from": "gpt", "value": "x"}], "tools": "{"}, "tools: is not JSON"),
    ("sharegpt", "supervised", {"conversations": [{"from": "gpt", "value": "x"}], "tools": 4}, "tools: must be a list"),
    ("hh-rlhf", "dpo", {"chosen": "hello", "rejected": REJECTED}, "is not a row of hh-rlhf"),
    ("hh-rlhf", "dpo", {"chosen": CHOSEN, "rejected": CHOSEN}, "are the same"),
    ("hh-rlhf", "dpo", {"chosen": CHOSEN, "rejected": "\n\nHuman: x\n\nAssistant: y"}, "begin with the same prompt"),
    ("hh-rlhf", "dpo", {"chosen": CHOSEN, "rejected": REJECTED + "\n\nHuman: x"}, "ends with an assistant message"),
    ("pairs", "dpo", {"chosen": "a", "rejected": "b"}, "prompt: is missing"),
    ("pairs", "dpo", {"prompt": "q", "chosen": "a", "rejected": "a "}, "are the same"),
    ("pairs", "dpo", {"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt: must be a list of messages, not a number"),
    ("ratings", "reward", {"prompt": "q", "responses": ["a"], "scores": [1]}, "has 1; a ranking needs from 2"),
    ("ratings", "reward", {"prompt": "q", "responses": ["a", "b"], "scores": [1]}, "scores: has 1 values for 2"),
    ("ratings", "reward", {"prompt": "q", "responses": ["a", "b"], "scores": [1, "x"]}, "scores[1]: has no rank"),
    ("ratings", "reward", {"prompt": "q", "responses": ["a", "b"]}, "responses[0]: has no rank and no score"),
    ("ratings", "reward", {"prompt": "q", "responses": ["a", "b"], "scores": [2, 2]}, "all have the same rank"),
    ("ratings", "dpo", {"prompt": "q", "responses": ["a", "b"], "scores": [2, 2]}, "all answers have the same rank"),
    ("ratings", "reward", {"prompt": "q", "responses": [{"x": 1}, "b"]}, "responses[0]: has no response"),
    ("completions", "supervised", {"prompt": "q"}, "has no assistant message"),
    ("text", "pretraining", {"text": " "}, "text: is empty"),
    ("text", "supervised", {"text": "x"}, "only pretraining learns from it"),
]
