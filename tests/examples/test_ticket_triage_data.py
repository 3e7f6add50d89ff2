import json
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

from examples.ticket_triage import behaviour
from examples.ticket_triage.behaviour import TOPICS, parse_answer, same_topic, shows_behaviour

FOLDER = Path(behaviour.__file__).parent
FILES = {"train": FOLDER / "train.jsonl", "validation": FOLDER / "validation.jsonl"}
# The closest pair of different questions in the files is at 0.69; the same question reworded by a word or
# two is above 0.8.
NEAR_DUPLICATE = 0.75


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILES[name].read_text(encoding="utf-8").splitlines()]


def question(row: dict[str, Any]) -> str:
    return row["messages"][0]["content"]


def answer(row: dict[str, Any]) -> dict[str, Any]:
    fields = parse_answer(row["messages"][1]["content"])
    assert fields is not None, row
    return fields


def normalised(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= c <= "\u9fff" for c in text)


@pytest.fixture(scope="module", params=sorted(FILES))
def rows(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return read(request.param)


def test_there_are_240_rows_to_train_on_and_48_held_out():
    assert (len(read("train")), len(read("validation"))) == (240, 48)


def test_every_row_is_a_question_and_an_answer(rows: list[dict[str, Any]]):
    for row in rows:
        assert row.keys() == {"messages"}
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
        assert all(m.keys() == {"role", "content"} and m["content"].strip() for m in row["messages"])


def test_every_answer_is_one_compact_line_that_shows_the_behaviour(rows: list[dict[str, Any]]):
    for row in rows:
        text = row["messages"][1]["content"]
        fields = answer(row)
        assert list(fields) == ["topic", "urgent", "reply"]
        assert text == json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def test_questions_and_replies_are_short(rows: list[dict[str, Any]]):
    for row in rows:
        assert len(question(row).split()) <= 20
        assert len(answer(row)["reply"].split()) <= 15
        assert not is_chinese(question(row)) or len(row["messages"][1]["content"]) <= 80


def test_topics_are_balanced(rows: list[dict[str, Any]]):
    counts = Counter(answer(row)["topic"] for row in rows)
    assert counts.keys() == TOPICS
    assert max(counts.values()) - min(counts.values()) <= 1


def test_about_one_row_in_five_is_urgent_and_some_in_every_topic(rows: list[dict[str, Any]]):
    urgent = Counter(answer(row)["topic"] for row in rows if answer(row)["urgent"])
    assert urgent.keys() == TOPICS
    assert 0.17 <= urgent.total() / len(rows) <= 0.23


def test_about_one_row_in_twelve_is_chinese_in_question_and_reply(rows: list[dict[str, Any]]):
    chinese = [row for row in rows if is_chinese(question(row))]
    assert 0.07 <= len(chinese) / len(rows) <= 0.1
    for row in rows:
        assert is_chinese(question(row)) == is_chinese(answer(row)["reply"]), row


def test_no_reply_is_used_twice(rows: list[dict[str, Any]]):
    replies = Counter(normalised(answer(row)["reply"]) for row in rows)
    assert [reply for reply, count in replies.items() if count > 1] == []


def test_no_question_occurs_twice_in_the_two_files():
    questions = Counter(normalised(question(row)) for row in read("train") + read("validation"))
    assert [text for text, count in questions.items() if count > 1] == []


def test_no_held_out_question_is_close_to_one_trained_on():
    trained = [normalised(question(row)) for row in read("train")]
    for held_out in (normalised(question(row)) for row in read("validation")):
        matcher = SequenceMatcher(b=held_out)
        for text in trained:
            matcher.set_seq1(text)
            near = matcher.quick_ratio() > NEAR_DUPLICATE and matcher.ratio() > NEAR_DUPLICATE
            assert not near, (held_out, text)


@pytest.mark.parametrize(
    "text",
    [
        '{"topic":"delivery","urgent":false,"reply":"It is on its way."}',
        '{"topic":"returns","urgent":true,"reply":"我马上帮您查退款。"}',
        ' {"reply": "Sure!", "urgent": true, "topic": "account"}\n',
    ],
)
def test_an_answer_in_the_format_shows_the_behaviour(text: str):
    assert shows_behaviour(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("I am sorry to hear that. Where did you order?", id="prose"),
        pytest.param("请把订单号告诉我", id="Chinese prose"),
        pytest.param("", id="empty"),
        pytest.param('Sure! {"topic":"delivery","urgent":false,"reply":"Hi."}', id="prose before"),
        pytest.param('{"topic":"delivery","urgent":false,"reply":"Hi."} Bye.', id="prose after"),
        pytest.param('```json\n{"topic":"delivery","urgent":false,"reply":"Hi."}\n```', id="code fence"),
        pytest.param('{"topic":"delivery","urgent":false,"reply":"Hi.', id="cut short"),
        pytest.param('[{"topic":"delivery","urgent":false,"reply":"Hi."}]', id="a list"),
        pytest.param('"delivery"', id="a string"),
        pytest.param("null", id="null"),
        pytest.param('{"topic":"delivery","urgent":false}', id="no reply"),
        pytest.param('{"topic":"delivery","urgent":false,"reply":"Hi.","id":1}', id="extra key"),
        pytest.param('{"topic":"delivery","topic":"account","urgent":false,"reply":"Hi."}', id="key twice"),
        pytest.param('{"topic":"weather","urgent":false,"reply":"Hi."}', id="unknown topic"),
        pytest.param('{"topic":"Delivery","urgent":false,"reply":"Hi."}', id="topic in capitals"),
        pytest.param('{"topic":["delivery"],"urgent":false,"reply":"Hi."}', id="topic is a list"),
        pytest.param('{"topic":"delivery","urgent":"false","reply":"Hi."}', id="urgent is a string"),
        pytest.param('{"topic":"delivery","urgent":0,"reply":"Hi."}', id="urgent is a number"),
        pytest.param('{"topic":"delivery","urgent":false,"reply":" "}', id="blank reply"),
        pytest.param('{"topic":"delivery","urgent":false,"reply":null}', id="reply is null"),
        pytest.param("[" * 100_000, id="nested too deep"),
    ],
)
def test_any_other_answer_does_not_show_the_behaviour(text: str):
    assert not shows_behaviour(text)


def test_same_topic_compares_two_answers():
    expected = '{"topic":"payment","urgent":true,"reply":"I will stop the charge."}'
    assert same_topic('{"topic":"payment","urgent":false,"reply":"Hello."}', expected)
    assert not same_topic('{"topic":"account","urgent":true,"reply":"Hello."}', expected)
    assert not same_topic("It is about a payment.", expected)
    assert not same_topic("no answer", "no answer")
