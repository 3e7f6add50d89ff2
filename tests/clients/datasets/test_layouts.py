"""Files that are not JSON lines get one sentence: what they are, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from burnish.datasets import ROW_FORMATS, check_file, check_rows, is_text
from burnish.datasets.conversion import Conversion
from burnish.datasets.errors import UnreadableError
from tests.clients.datasets.conversions import Row, assistant, user
from tests.fixtures.rows import GOOD, USER

TALK: Row = {"messages": [USER, GOOD]}
MANY = [TALK] * 30

# (the file, a part of the sentence)
OTHER_LAYOUTS: dict[str, tuple[str, str]] = {
    "one object over several lines": (json.dumps(TALK, indent=2), "jq -c . FILE"),
    "several such objects": ("\n".join(json.dumps(row, indent=4, ensure_ascii=False) for row in MANY), "jq -c . FILE"),
    "rows in a list": (json.dumps({"data": MANY}, indent=2), "jq -c '.data[]' FILE"),
    "rows in a list behind other keys": (json.dumps({"version": 1, "data": MANY}, indent=2), "jq -c . FILE"),
    "rows in a list that begins at once": (
        '{"train": [\n' + json.dumps(TALK) + ",\n" + json.dumps(TALK) + "]}",
        ".train[]",
    ),
    "blank lines before": ("\n\n" + json.dumps(TALK, indent=2), "jq -c . FILE"),
    "carriage returns": (json.dumps(TALK, indent=2).replace("\n", "\r\n"), "jq -c . FILE"),
    "a table with commas": ("prompt,completion\n" + "你好,您好\n" * 30, "(CSV)"),
    "a table in quotes": ('"问题","答案"\n' + '"你好","您\n好"\n' * 30, "(CSV)"),
    "a table with semicolons": ("question;answer;id\n" + "a;b;1\n" * 30, "(CSV)"),
    "a table with tabs": ("问题\t答案\n" + "你好\t您好\n" * 30, "(TSV)"),
}


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("name", OTHER_LAYOUTS)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_check_says_in_one_sentence_what_the_file_is(name: str, size: int) -> None:
    text, sentence = OTHER_LAYOUTS[name]
    for row_format in (None, ROW_FORMATS["supervised"]):
        summary = check_rows(pieces(text.encode(), size), row_format)
        assert [problem.line for problem in summary.problems] == [3 if text.startswith("\n") else 1]
        assert sentence in summary.problems[0].reason
        assert (summary.more_problems, summary.rows) == (0, 0)


@pytest.mark.parametrize("name", OTHER_LAYOUTS)
@pytest.mark.parametrize("size", [5, 1 << 20])
def test_the_converter_says_it_in_the_same_words(name: str, size: int) -> None:
    text, _ = OTHER_LAYOUTS[name]
    data = text.encode()
    with pytest.raises(UnreadableError) as refused:
        list(Conversion("supervised").lines("a.jsonl", pieces(data, size)))
    assert str(refused.value) == check_rows([data]).problems[0].reason


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_an_array_over_several_lines_is_one_problem_and_converts(size: int) -> None:
    for array in (json.dumps(MANY, indent=1), "[\n" + ",\n".join(map(json.dumps, MANY)) + "\n]"):
        summary = check_rows(pieces(array.encode(), size), ROW_FORMATS["supervised"])
        (problem,) = summary.problems
        assert (problem.line, summary.more_problems) == (1, 0)
        assert "a JSON array" in problem.reason
        assert "burnish data convert" in problem.reason
        assert len(list(Conversion("supervised").lines("a.json", [array.encode()]))) == 30


def test_one_line_with_all_rows_in_a_list_says_so() -> None:
    data = json.dumps({"data": MANY}).encode()
    problems = check_rows([data], ROW_FORMATS["supervised"]).problems
    assert any("jq -c '.data[]' FILE" in problem.reason for problem in problems)
    with pytest.raises(UnreadableError, match=r"jq -c '\.data\[\]' FILE"):
        list(Conversion("supervised").lines("a.json", [data]))


GOOD_LINE = json.dumps(TALK)


@pytest.mark.parametrize(
    "first",
    [
        '{"messages": [{"role": "user"',
        GOOD_LINE + ",",
        "not json, but a text with commas",
        "hello",
        '{"a": 1,}',
        "{'a': 1}",
    ],
)
def test_a_broken_first_line_is_only_that(first: str) -> None:
    """What follows are rows: they are checked, and no word of another layout is said."""
    data = "\n".join([first, *[GOOD_LINE] * 3]).encode()
    for size in (1, 1 << 20):
        summary = check_rows(pieces(data, size), ROW_FORMATS["supervised"])
        assert [problem.line for problem in summary.problems] == [1]
        assert "is not JSON" in summary.problems[0].reason
        assert summary.rows == 3
    conversion = Conversion("supervised")
    assert len(list(conversion.lines("a.jsonl", [data]))) == 3
    assert [place for place, _ in conversion.refused] == ["line 1"]


def test_a_name_may_be_in_capitals() -> None:
    assert is_text("数据.TXT.GZ")
    assert check_file("数据.TXT", ["从前".encode()], ROW_FORMATS["pretraining"]).ok
    assert check_file("TRAIN.JSONL", [GOOD_LINE.encode()], ROW_FORMATS["supervised"]).ok


ASK_AND_ANSWER = {"messages": [user("首都?"), assistant("巴黎")]}
ROUNDS = {"messages": [user("首都?"), assistant("巴黎"), user("河?"), assistant("塞纳河")]}

# (the format, the row, the row that it makes)
PEOPLE_HAVE: list[tuple[str, Row, Row]] = [
    ("completions", {"human": "首都?", "assistant": "巴黎"}, ASK_AND_ANSWER),
    ("completions", {"query": "首都?", "response": "巴黎"}, ASK_AND_ANSWER),
    ("completions", {"question": "首都?", "answer": "巴黎"}, ASK_AND_ANSWER),
    ("completions", {"input": "首都?", "output": "巴黎"}, ASK_AND_ANSWER),
    ("completions", {"prompt": "首都?", "response": "巴黎"}, ASK_AND_ANSWER),
    (
        "completions",
        {"instruction": "首都?", "context": "", "response": "巴黎", "category": "closed_qa"},
        ASK_AND_ANSWER,
    ),
    (
        "completions",
        {"instruction": "首都?", "context": "法国在欧洲。", "response": "巴黎"},
        {"messages": [user("首都?\n法国在欧洲。"), assistant("巴黎")]},
    ),
    (
        "sharegpt",
        {"conversations": [{"human": "首都?", "assistant": "巴黎"}, {"human": "河?", "assistant": "塞纳河"}]},
        ROUNDS,
    ),
    ("sharegpt", {"conversation": [{"user": "首都?", "assistant": "巴黎"}]}, ASK_AND_ANSWER),
    ("chat", {"messages": [{"human": "首都?"}, {"gpt": "巴黎"}]}, ASK_AND_ANSWER),
    (
        "sharegpt",
        {
            "conversation": [
                {"human": "首都?", "assistant": "里昂", "loss": False},
                {"human": "河?", "assistant": "塞纳河"},
            ]
        },
        {
            "messages": [
                user("首都?"),
                assistant("里昂") | {"weight": 0},
                user("河?"),
                assistant("塞纳河"),
            ]
        },
    ),
    (
        "chat",
        {"messages": [user("") | {"content": [{"type": "text", "value": "首都?"}]}, assistant("巴黎")]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "首都?"}]}, assistant("巴黎")]},
    ),
]


@pytest.mark.parametrize("case", range(len(PEOPLE_HAVE)))
def test_common_rows_are_known_by_their_keys(case: int) -> None:
    source, row, wanted = PEOPLE_HAVE[case]
    conversion = Conversion("supervised")
    assert [json.loads(line) for line in conversion.lines("A.JSONL", [json.dumps(row).encode()])] == [wanted]
    assert conversion.source == source
    assert set(conversion.left_out) <= {"category"}
