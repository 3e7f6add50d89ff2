"""The quick check of many lines says the same as the exact one of each line, whatever the lines are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.datasets import ROW_FORMATS, DatasetSummary, LineChecker, quick
from burnish.datasets.lines import Block
from tests.fixtures.rows import BAD, GOOD, INPUT, labelled, pair, prompt, ranked

GOOD_ROWS: dict[str, list[dict[str, Any]]] = {
    "pretraining": [{"text": "从前有座山"}, {"text": 'a "quoted"\n\\text'}],
    "supervised": [{"messages": [*INPUT["messages"], GOOD]}, {"messages": [GOOD]}],
    "reward": [pair(), ranked(1, 2)],
    "dpo": [pair(), pair(preferred_output=[BAD], non_preferred_output=[GOOD])],
    "orpo": [pair()],
    "ppo": [prompt(*INPUT["messages"]), prompt(*INPUT["messages"], reference='"巴黎"')],
    "grpo": [prompt(*INPUT["messages"])],
    "kto": [labelled(), labelled(label=False)],
    "reinforcement": [INPUT, {**INPUT, "答案": '"巴黎"', 'a\\"b': ""}],
}
NASTY = (
    b'{"text":"\\u0022","a":1,"a":2}',
    b'{"text":"\\u0000"}',
    b'{"\\u0000":1}',
    b'{"text":18446744073709551616}',
    b'{"text":"x","n":9223372036854775808}',
    b'{"text":' + b"[" * 100 + b"]" * 100 + b"}",
    b'{"text":' + b"[" * 99 + b"]" * 99 + b"}",
    b'{"messages":[{"role":"user","role":"assistant","content":"x"}]}',
    b'{"messages":[{"role":"assistant","content":"x"}],"messages":[{"role":"assistant","content":"x"}]}',
    b'{"text":"\\ud800"}',
    b'{"text":NaN}',
    b'{"text":"x"},{"text":"y"}',
    b'{"text":[1',
    b"2]}",
    b'{"text":"  "}',
    b"  ",
    b"\r",
    b"[]",
    b"1",
    b'"x"',
    b'{"text":"x\0"}',
    b"\xff",
)


@pytest.mark.parametrize("method", ROW_FORMATS)
def test_good_rows_get_a_quick_yes(method: str) -> None:
    lines = [orjson.dumps(row) for row in GOOD_ROWS[method]]
    rows = quick.good_rows(Block(1, b"\n".join(lines), lines, sum(map(len, lines))), ROW_FORMATS[method])
    assert rows == GOOD_ROWS[method]


@pytest.mark.parametrize("line", NASTY)
def test_one_bad_row_takes_the_yes_from_all(line: bytes) -> None:
    good = orjson.dumps(GOOD_ROWS["supervised"][0])
    for method in (None, *ROW_FORMATS):
        assert checked([good, line, good], method) == exactly([good, line, good], method)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.data())
def test_quick_and_exact_agree_on_mutated_rows(data: st.DataObject) -> None:
    method = data.draw(st.sampled_from([None, *ROW_FORMATS]))
    known = [orjson.dumps(row) for rows in GOOD_ROWS.values() for row in rows]
    if method is not None:  # mostly rows of its own, so that the quick way is gone to its end
        known = [orjson.dumps(row) for row in GOOD_ROWS[method]] * 8 + known
    dice = random.Random(data.draw(st.integers(0, 2**32)))
    lines = data.draw(st.lists(st.sampled_from([*known, b"", *NASTY]) | st.sampled_from(known), max_size=6))
    lines = [mutated(line, dice) if dice.random() < 0.2 else line for line in lines]
    assert checked(lines, method) == exactly(lines, method)


def mutated(line: bytes, dice: random.Random) -> bytes:
    """Change, drop, or double a piece of a line; where it stays JSON, its keys and values change places."""
    changed = bytearray(line)
    for _ in range(dice.randint(1, 3)):
        start = dice.randrange(len(changed) + 1)
        piece = bytes(changed[start : start + dice.randint(1, 30)])
        other = dice.choice(
            [b"", piece * 2, b'"', b"\\u0022", b"\\u0000", b'"a":1,', b"{", b"]", b" ", b"1" * 20, b"\0"]
        )
        changed[start : start + len(piece)] = other
    return bytes(changed).replace(b"\n", b" ")


def checked(lines: list[bytes], method: str | None) -> tuple[DatasetSummary, list[Any]]:
    rows: list[Any] = []
    checker = LineChecker(method and ROW_FORMATS[method], on_row=lambda number, row: rows.append((number, row)))
    checker.feed(b"\n".join(lines) + b"\n")
    return checker.finish(), rows


def exactly(lines: list[bytes], method: str | None) -> tuple[DatasetSummary, list[Any]]:
    with no_quick_way():
        return checked(lines, method)


class no_quick_way:  # noqa: N801 - reads as a phrase
    def __enter__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr("burnish.datasets.jsonl.good_rows", lambda *_: None)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


def test_memory_is_that_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    exact = quick.good_rows

    def told(block: Block, row_format: Any) -> Any:
        sizes.append(len(block.data))
        return exact(block, row_format)

    monkeypatch.setattr("burnish.datasets.jsonl.good_rows", told)
    checker = LineChecker()
    for chunk in chunks():
        checker.feed(chunk)
    assert checker.finish().rows == 30_000
    assert max(sizes) <= 64 << 10


def chunks() -> Iterator[bytes]:
    line = orjson.dumps(GOOD_ROWS["supervised"][0]) + b"\n"
    yield line * 29_000
    yield line * 1_000
