"""What the converters read, written as the rows of a method."""

from __future__ import annotations

from collections.abc import Callable

from burnish.datasets import ROW_FORMATS, ItemRows, RowFormat
from burnish.datasets.base import Row
from burnish.datasets.converters.base import ChatExample, Example, RankedExample, RankedResponse, TextExample
from burnish.datasets.errors import NotConvertibleError
from burnish.datasets.labelled import LabelledRows
from burnish.datasets.pairs import PairRows
from burnish.datasets.pretraining import TextRows
from burnish.datasets.prompts import PromptRows
from burnish.datasets.rankings import RankingRows
from burnish.datasets.supervised import SupervisedRows


def rows_of(example: Example, method: str) -> list[Row]:
    """Return the rows of a method (a name in `ROW_FORMATS`) that an example makes, in order.

    They are not checked yet. Raises NotConvertibleError if the example lacks what the method learns from.
    """
    return _WRITERS[type(ROW_FORMATS[method])](example)


def name_unused_parts(example: Example, method: str) -> list[str]:
    """Return what of an example the rows of a method have no place for, by the names of its keys."""
    kind = type(ROW_FORMATS[method])
    if isinstance(example, RankedExample):
        scored = any(response.score is not None for response in example.responses)
        return ["scores"] if scored and kind is not RankingRows else []
    labelled = isinstance(example, ChatExample) and example.label is not None
    return ["label"] if labelled and kind is not LabelledRows else []


def _pretraining_rows(example: Example) -> list[Row]:
    if isinstance(example, TextExample):
        return [{"text": example.text}]
    raise NotConvertibleError("the row is a conversation; pretraining learns from plain text")


def _make_supervised_rows(example: Example) -> list[Row]:
    if isinstance(example, RankedExample):
        return [_input_block([*example.prompt, *_best_response(example).messages], example.options)]
    chat = _require_chat(example)
    if chat.label is False:
        raise NotConvertibleError("the row's label says that its answer is bad; supervised would learn it")
    return [_input_block(chat.messages, chat.options)]


def _prompt_rows(example: Example) -> list[Row]:
    if isinstance(example, RankedExample):
        return [{"input": _input_block(example.prompt, example.options)}]
    chat = _require_chat(example)
    prompt, answer = _last_answer(chat)
    # A bad answer is nothing to compare with.
    content = answer[0].get("content") if answer and chat.label is not False else None
    reference = {"reference": content} if isinstance(content, str) and content else {}
    return [{"input": _input_block(prompt, chat.options), **reference}]


def _item_rows(example: Example) -> list[Row]:
    """Lay prompts out at the top of their rows: a reference is `{{item.reference}}` in a grader."""
    return [{**row.pop("input"), **row} for row in _prompt_rows(example)]


def _make_labelled_rows(example: Example) -> list[Row]:
    if isinstance(example, RankedExample):
        labelled_responses = ((_best_response(example), True), (_worst_response(example), False))
        return [
            {"input": _input_block(example.prompt, example.options), "output": side.messages, "label": label}
            for side, label in labelled_responses
        ]
    chat = _require_chat(example)
    if chat.label is None:
        raise NotConvertibleError("the row has no label that says whether its answer is good")
    prompt, answer = _last_answer(chat)
    return [{"input": _input_block(prompt, chat.options), "output": answer, "label": chat.label}]


def _pair_rows(example: Example) -> list[Row]:
    ranked_responses = _require_ranked(example)
    return [
        {
            "input": _input_block(ranked_responses.prompt, ranked_responses.options),
            "preferred_output": _best_response(ranked_responses).messages,
            "non_preferred_output": _worst_response(ranked_responses).messages,
        }
    ]


def _ranking_rows(example: Example) -> list[Row]:
    ranked_responses = _require_ranked(example)
    responses: list[Row] = [
        {**_message_or_messages(response.messages), "rank": response.rank}
        | ({} if response.score is None else {"score": response.score})
        for response in sorted(ranked_responses.responses, key=lambda response: response.rank)
    ]
    return [{"input": _input_block(ranked_responses.prompt, ranked_responses.options), "responses": responses}]


def _message_or_messages(messages: list[Row]) -> Row:
    return {"message": messages[0]} if len(messages) == 1 else {"messages": messages}


_WRITERS: dict[type[RowFormat], Callable[[Example], list[Row]]] = {
    TextRows: _pretraining_rows,
    SupervisedRows: _make_supervised_rows,
    RankingRows: _ranking_rows,
    PairRows: _pair_rows,
    PromptRows: _prompt_rows,
    LabelledRows: _make_labelled_rows,
    ItemRows: _item_rows,
}
"""How each kind of row is written: a method with rows of a known kind needs nothing here."""


def _require_chat(example: Example) -> ChatExample:
    if isinstance(example, ChatExample):
        return example
    raise NotConvertibleError("the row is plain text; only pretraining learns from it")


def _require_ranked(example: Example) -> RankedExample:
    if isinstance(example, RankedExample):
        return example
    raise NotConvertibleError("the row has no answers to compare; it needs a better one and a worse one")


def _best_response(example: RankedExample) -> RankedResponse:
    _check_ranks(example)
    return min(example.responses, key=lambda response: response.rank)


def _worst_response(example: RankedExample) -> RankedResponse:
    _check_ranks(example)
    return max(example.responses, key=lambda response: response.rank)


def _check_ranks(example: RankedExample) -> None:
    if len({response.rank for response in example.responses}) < 2:
        few = len(example.responses) < 2
        raise NotConvertibleError("there are fewer than two answers" if few else "all answers have the same rank")


def _last_answer(chat: ChatExample) -> tuple[list[Row], list[Row]]:
    """Return the conversation up to its last answer, and that; nothing if the conversation ends without one."""
    if chat.messages and chat.messages[-1]["role"] == "assistant":
        return chat.messages[:-1], chat.messages[-1:]
    return chat.messages, []


def _input_block(prompt: list[Row], options: Row) -> Row:
    return {"messages": prompt, **options}
