"""What a good row is: the check, the converters and the trainer agree on each row of one table."""

from __future__ import annotations

import json

import orjson
import pytest

from burnish.datasets import ROW_FORMATS, check_rows, drop_null_keys
from burnish.datasets.conversion import Conversion
from tests.clients.datasets.conversions import CONVERSIONS, Row
from tests.fixtures import conversation_rows, row_tables
from trainer.contract.methods import METHODS
from trainer.contract.rows import (
    AnyRow,
    ChatRow,
    ItemRow,
    LabelledRow,
    PreferenceRow,
    PromptRow,
    RankingRow,
    TextRow,
)
from trainer.kit.row_files import parse_row

ROW_CLASSES: dict[str, type[AnyRow]] = {
    "pretraining": TextRow,
    "supervised": ChatRow,
    "reward": RankingRow,
    "dpo": PreferenceRow,
    "orpo": PreferenceRow,
    "ppo": PromptRow,
    "grpo": PromptRow,
    "kto": LabelledRow,
    "reinforcement": ItemRow,
}
GOOD = {
    **row_tables.GOOD_ROWS,
    **{f"conversation: {name}": ("supervised", row) for name, row in conversation_rows.GOOD_ROWS.items()},
}
BAD = [
    *((method, row) for method, row, _ in row_tables.BAD_ROWS),
    *(("supervised", row) for row, _ in conversation_rows.BAD_ROWS),
]


def line_of(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False)


def test_every_method_has_a_format_and_a_class() -> None:
    """A method without one would be checked by nobody."""
    assert set(ROW_CLASSES) == set(ROW_FORMATS) == {method.model_fields["type"].default for method in METHODS}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_row_passes_the_check_and_the_trainer(name: str) -> None:
    method, row = GOOD[name]
    assert check_rows([line_of(row).encode()], ROW_FORMATS[method]).ok
    assert isinstance(parse_row(line_of(row), ROW_CLASSES[method]), ROW_CLASSES[method])


@pytest.mark.parametrize("name", [name for name in GOOD if GOOD[name][0] != "reinforcement"])
def test_the_trainer_reads_a_row_with_nulls_as_one_without(name: str) -> None:
    """JSON lines with nulls, and Parquet, which has none left, train the same."""
    method, row = GOOD[name]
    with_nulls, without_nulls = line_of(row), line_of(drop_null_keys(row))
    assert check_rows([without_nulls.encode()], ROW_FORMATS[method]).ok
    assert parse_row(with_nulls, ROW_CLASSES[method]) == parse_row(without_nulls, ROW_CLASSES[method])


def test_nulls_inside_of_tools_are_not_trained() -> None:
    schema = {"type": "object", "properties": {"城市": {"type": "string", "description": None}, "年": None}}
    tool = conversation_rows.tool(parameters=schema, strict=None)
    row = parse_row(
        line_of(conversation_rows.row(conversation_rows.USER, conversation_rows.ANSWER, tools=[tool])), ChatRow
    )
    assert row.tools is not None
    assert "null" not in json.dumps(row.tools)
    assert row.tools[0]["function"]["parameters"]["properties"] == {"城市": {"type": "string"}}


@pytest.mark.parametrize("weight", [0, 0.0, 1, 1.0, None])
def test_a_weight_may_be_written_as_a_fraction(weight: float | None) -> None:
    user, answer = conversation_rows.USER, conversation_rows.ANSWER
    row = conversation_rows.row(user, answer | {"weight": weight}, user, answer)
    assert check_rows([line_of(row).encode()], ROW_FORMATS["supervised"]).ok
    assert parse_row(line_of(row), ChatRow).messages[1].trained == (weight != 0)


@pytest.mark.parametrize("case", range(len(BAD)))
def test_a_bad_row_is_refused_by_both_in_the_same_words(case: int) -> None:
    method, row = BAD[case]
    problem, *_ = check_rows([line_of(row).encode()], ROW_FORMATS[method]).problems
    with pytest.raises(ValueError, match=r"\S") as refused:
        parse_row(line_of(row), ROW_CLASSES[method])
    assert problem.reason == str(refused.value)


@pytest.mark.parametrize("case", range(len(CONVERSIONS)))
def test_what_a_converter_writes_trains(case: int) -> None:
    source, method, row, _ = CONVERSIONS[case]
    conversion = Conversion(method, source)
    lines = list(conversion.lines("rows.jsonl", [orjson.dumps(row)]))
    assert lines
    for line in lines:
        assert parse_row(line.decode(), ROW_CLASSES[method])


def test_answers_that_part_early_become_responses_of_several_turns() -> None:
    """Transcripts as HH-RLHF has them: both turns of each answer are kept, and the trainer reads them."""
    row = {
        "chosen": "\n\nHuman: 你好\n\nAssistant: 您好!\n\nHuman: 首都?\n\nAssistant: 巴黎。",
        "rejected": "\n\nHuman: 你好\n\nAssistant: 嗯。\n\nHuman: 首都?\n\nAssistant: 里昂。",
    }
    (line,) = Conversion("reward", "hh-rlhf").lines("rows.jsonl", [orjson.dumps(row)])
    ranking = parse_row(line.decode(), RankingRow)
    assert [[message.text for message in response.messages] for response in ranking.responses] == [
        ["您好!", "首都?", "巴黎。"],
        ["嗯。", "首都?", "里昂。"],
    ]
