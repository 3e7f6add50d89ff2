from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.datasets import ROW_FORMATS, check_rows
from burnish.datasets.conversion import Conversion
from burnish.datasets.converters import CONVERTERS, detect_converter
from burnish.datasets.errors import UnreadableError
from tests.clients.datasets.conversions import CONVERSIONS, REFUSED, Row, assistant, pair, user

DATA = Path(os.environ.get("BURNISH_TEST_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")


def converted(conversion: Conversion, *rows: Row, name: str = "rows.jsonl") -> list[Row]:
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    return [json.loads(line) for line in conversion.lines(name, [data])]


@pytest.mark.parametrize("case", range(len(CONVERSIONS)))
@pytest.mark.parametrize("named", [True, False])
def test_a_row_becomes_rows_of_the_method(case: int, named: bool) -> None:
    source, method, row, wanted = CONVERSIONS[case]
    conversion = Conversion(method, source if named else None)
    assert converted(conversion, row) == wanted
    assert (conversion.source, conversion.read, conversion.written) == (source, 1, len(wanted))
    assert conversion.refused == []


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_rows_that_cannot_be_converted_are_reported_with_line_and_reason(case: int) -> None:
    source, method, row, reason = REFUSED[case]
    conversion = Conversion(method, source)
    assert converted(conversion, row) == []
    assert [place for place, _ in conversion.refused] == ["line 1"]
    assert reason in conversion.refused[0][1]
    assert (conversion.read, conversion.written, conversion.refused_count) == (1, 0, 1)


def test_every_converter_is_tested() -> None:
    assert {source for source, *_ in CONVERSIONS} == set(CONVERTERS)
    assert {method for _, method, *_ in CONVERSIONS} == set(ROW_FORMATS)


def test_bad_rows_are_left_out_and_the_first_twenty_reported() -> None:
    good = {"prompt": "a", "completion": "b"}
    conversion = Conversion("supervised")
    assert len(converted(conversion, good, *[{"prompt": "a"}] * 30, good)) == 2
    assert (conversion.read, conversion.written, conversion.refused_count) == (32, 2, 30)
    assert [place for place, _ in conversion.refused] == [f"line {line}" for line in range(2, 22)]


def test_an_unknown_format_is_reported_with_its_keys() -> None:
    with pytest.raises(UnreadableError, match=r"has the keys 问题, x\); name it, if it is one of sharegpt-pairs, "):
        converted(Conversion("dpo"), {"问题": 1, "x": 2})
    assert detect_converter({}) is None


def test_plain_text_becomes_documents() -> None:
    conversion = Conversion("pretraining")
    text = "从前\n<|endoftext|>\nقصة\n"
    rows = [json.loads(line) for line in conversion.lines("故事.txt", [text.encode()])]
    assert rows == [{"text": "从前"}, {"text": "قصة\n"}]
    with pytest.raises(UnreadableError, match="is plain text, not rows of alpaca"):
        list(Conversion("pretraining", "alpaca").lines("a.txt", [b"x"]))


def test_a_row_that_grows_too_long_is_refused() -> None:
    conversion = Conversion("supervised")
    assert converted(conversion, {"instruction": "a", "output": "x" * ((8 << 20) - 50)}) == []
    assert "bytes long; a row may have 8388608" in conversion.refused[0][1]


def masked_rows(key: str, silent: object, learned: object) -> list[tuple[str, Row]]:
    """A wrong answer that is not to be learned and a right one that is, in each way to write turns."""
    turns = [("user", "青铜是什么?"), ("assistant", "一种元素。"), ("user", "再想想。"), ("assistant", "铜锡合金。")]
    flags = [{key: silent}, {key: silent}, {key: silent}, {key: learned}]
    names = {"user": "human", "assistant": "gpt"}
    told = [{"from": names[who], "value": text} | flag for (who, text), flag in zip(turns, flags, strict=True)]
    chat = [{"role": who, "content": text} | flag for (who, text), flag in zip(turns, flags, strict=True)]
    pair_row = {"prompt": chat[:3], "chosen": chat[3], "rejected": {"role": "assistant", "content": "不知道。"}}
    return [
        ("sharegpt", {"conversations": told}),
        ("chat", {"messages": chat}),
        ("pairs", pair_row),
    ]


@pytest.mark.parametrize("key", ["weight", "loss_weight", "train", "training", "trainable", "loss"])
@pytest.mark.parametrize(("silent", "learned"), [(0, 1), (0.0, 1.0), (False, True), (0, None)])
def test_turns_that_are_kept_out_of_the_loss_stay_out_of_it(key: str, silent: object, learned: object) -> None:
    for source, row in masked_rows(key, silent, learned):
        (made,) = converted(Conversion("supervised", source), row)
        weights = [message.get("weight") for message in made["messages"]]
        assert weights == [None, 0, None, learned if learned is None else 1]
        assert not any(isinstance(weight, bool | float) for weight in weights)


@pytest.mark.parametrize("value", [0.5, 2, -1, "0", "false", [], {}])
@pytest.mark.parametrize("key", ["weight", "loss_weight", "train", "loss"])
def test_a_flag_of_the_loss_that_is_neither_yes_nor_no_is_refused(key: str, value: object) -> None:
    for source, row in masked_rows(key, value, 1):
        conversion = Conversion("supervised", source)
        assert converted(conversion, row) == []
        assert f"[0].{key}: is " in conversion.refused[0][1]
        assert "a turn is learned (1, true) or not (0, false)" in conversion.refused[0][1]


def test_flags_of_the_loss_that_contradict_each_other_are_refused() -> None:
    conversion = Conversion("supervised")
    assert converted(conversion, {"messages": [user("a"), assistant("b") | {"weight": 0, "train": True}]}) == []
    assert "messages[1].weight: contradicts train" in conversion.refused[0][1]


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(str.strip)


@settings(max_examples=100, deadline=None)
@given(TEXT, TEXT, TEXT)
def test_text_in_any_script_comes_through_unchanged(prompt: str, better: str, worse: str) -> None:
    if better.strip() == worse.strip() or prompt.startswith("\n\nHuman:"):
        return
    row = {"prompt": prompt, "chosen": better, "rejected": worse}
    assert converted(Conversion("dpo", "pairs"), row) == [pair([user(prompt)], [assistant(better)], [assistant(worse)])]


KEYS = st.sampled_from(
    ["instruction", "input", "output", "history", "conversations", "from", "value", "role", "content"]
)
MORE_KEYS = st.sampled_from(["prompt", "chosen", "rejected", "responses", "scores", "completions", "tools", "messages"])
SCALARS = st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "a", "human", "gpt", "function_call"])


def either(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(KEYS | MORE_KEYS, inner, max_size=4)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS | MORE_KEYS, st.recursive(SCALARS, either, max_leaves=10), min_size=1, max_size=6))
def test_any_object_is_converted_to_good_rows_or_refused(row: Row) -> None:
    for source in CONVERTERS:
        for method in ROW_FORMATS:
            conversion = Conversion(method, source)
            lines = list(conversion.lines("x.jsonl", [orjson.dumps(row)]))
            assert bool(lines) is (conversion.refused_count == 0)
            assert check_rows(lines, ROW_FORMATS[method], min_rows=0).rows == len(lines)


def chunks(path: Path) -> Iterator[bytes]:
    if not path.exists():
        pytest.skip(
            f"{path.name} is not there: the public data lies in ../shared/data, or where BURNISH_TEST_DATA says"
        )
    with path.open("rb") as file:
        while chunk := file.read(65_521):
            yield chunk


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "method", "rows"),
    [
        ("alpaca_en_demo.json", "alpaca", "supervised", 999),
        ("alpaca_en_demo.json", "alpaca", "ppo", 999),
        ("alpaca_en_demo.json", "alpaca", "grpo", 999),
        ("dpo_en_demo.json", "sharegpt-pairs", "dpo", 300),
        ("dpo_en_demo.json", "sharegpt-pairs", "orpo", 300),
        ("dpo_en_demo.json", "sharegpt-pairs", "reward", 300),
        ("dpo_en_demo.json", "sharegpt-pairs", "kto", 600),
        ("dpo_en_demo.json", "sharegpt-pairs", "ppo", 300),
        ("c4_demo.jsonl", "text", "pretraining", 300),
        ("tinyshakespeare.txt", "text", "pretraining", 2),
    ],
)
def test_public_data_goes_through_whole(name: str, source: str, method: str, rows: int) -> None:
    conversion = Conversion(method)
    lines = list(conversion.lines(name, chunks(DATA / name)))
    assert (conversion.source, conversion.refused) == (source, [])
    summary = check_rows(lines, ROW_FORMATS[method])
    assert (summary.rows, summary.problems) == (rows, ())


def test_public_pairs_keep_every_text() -> None:
    data = b"".join(chunks(DATA / "dpo_en_demo.json"))
    rows = [json.loads(line) for line in Conversion("dpo").lines("dpo.json", [data])]
    for row, original in zip(rows, json.loads(data), strict=True):
        said = [message["content"] for message in row["input"]["messages"]]
        assert said == [turn["value"] for turn in original["conversations"]]
        assert row["preferred_output"] == [assistant(original["chosen"]["value"])]
        assert row["non_preferred_output"] == [assistant(original["rejected"]["value"])]


def test_public_text_is_put_together_again() -> None:
    data = b"".join(chunks(DATA / "tinyshakespeare.txt"))
    rows = [json.loads(line) for line in Conversion("pretraining").lines("t.txt", [data])]
    assert "".join(row["text"] for row in rows).encode() == data
