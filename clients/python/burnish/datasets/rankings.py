"""Rows of rankings: a prompt and its responses from the best to the worst; pairs will do, too.

`{"input": {"messages", …}, "responses": [{"message": {…}, "rank": int, "score"?: number}, …]}`, rank 1 the best,
ties allowed. A response of several turns has `messages` in place of `message`: the assistant's and the user's in
turns. Or what `pairs` describes.
"""

from __future__ import annotations

from typing import Any, cast

from burnish.datasets.base import Row
from burnish.datasets.messages import Conversation, unknown_keys
from burnish.datasets.pairs import PAIR_KEYS, PairRows
from burnish.datasets.turns import check_input, check_output, check_reply, spoken_content
from burnish.datasets.wording import json_kind, quote_value

MIN_RESPONSES, MAX_RESPONSES = 2, 64
_RESPONSE_KEYS = frozenset({"message", "messages", "rank", "score"})


class RankingRows:
    """The `RowFormat` of rankings."""

    name = "reward"
    plain_text = False

    def __init__(self) -> None:
        self._pairs = PairRows(self.name)

    def check_row(self, row: Row) -> list[str]:
        """Return what is wrong with a row; see `RowFormat.check_row`."""
        if row.get("responses") is None and any(row.get(key) is not None for key in PAIR_KEYS):
            return self._pairs.check_row(row)
        problems: list[str] = []
        prompt = check_input(row, problems)
        if "responses" in row:
            _check_responses(row["responses"], prompt, problems)
        else:
            problems.append("responses: is missing; a row needs a list of ranked responses")
        problems.extend(unknown_keys("", row, ("input", "responses")))
        return problems

    def count_plain_strings(self, row: Row, texts: list[str]) -> int:
        """Count the strings of a plain pair; see `RowFormat.count_plain_strings`."""
        return self._pairs.count_plain_strings(row, texts)


def _check_responses(value: object, prompt: Conversation, problems: list[str]) -> None:
    if not isinstance(value, list):
        problems.append(f"responses: must be a list of ranked responses, not {json_kind(value)}")
        return
    responses = cast("list[object]", value)
    if not MIN_RESPONSES <= len(responses) <= MAX_RESPONSES:
        problems.append(
            f"responses: has {len(responses)}; a ranking needs from {MIN_RESPONSES} to {MAX_RESPONSES} responses"
        )
        return
    before = len(problems)
    for index, response in enumerate(responses):
        _check_response(f"responses[{index}]", response, prompt, problems)
    if len(problems) == before:
        _check_order(cast("list[Row]", responses), problems)


def _check_response(place: str, value: object, prompt: Conversation, problems: list[str]) -> None:
    if not isinstance(value, dict):
        problems.append(f"{place}: must be an object with message and rank, not {json_kind(value)}")
        return
    response = cast("dict[str, Any]", value)
    _check_turns_of(place, response, prompt, problems)
    rank = response.get("rank")
    if "rank" not in response:
        problems.append(f"{place}.rank: is missing; use a whole number, 1 for the best")
    elif isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        problems.append(f"{place}.rank: is {quote_value(rank)}; use a whole number, 1 for the best")
    score = response.get("score")
    if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))):
        problems.append(f"{place}.score: must be a number, not {json_kind(score)}; leave the key out if there is none")
    problems.extend(unknown_keys(place, response, _RESPONSE_KEYS))


def _check_turns_of(place: str, response: Row, prompt: Conversation, problems: list[str]) -> None:
    if response.get("message") is not None and response.get("messages") is not None:
        problems.append(f"{place}: has message and messages; keep one, messages for a response of several turns")
    elif response.get("messages") is not None:
        check_output(f"{place}.messages", response["messages"], prompt, problems)
    elif "message" in response:
        check_reply(f"{place}.message", response["message"], prompt, problems)
    else:
        problems.append(f"{place}.message: is missing")


def _check_order(responses: list[Row], problems: list[str]) -> None:
    """Look at the responses, each of them good, beside each other."""
    if len({response["rank"] for response in responses}) == 1:
        problems.append("responses: all have the same rank; there is no order to learn")
        return
    first: dict[bytes, int] = {}
    for index, response in enumerate(responses):
        first_index = first.setdefault(repr(spoken_content(_messages_of(response))).encode(), index)
        if responses[first_index]["rank"] != response["rank"]:
            problems.append(
                f"responses[{index}]: says the same as responses[{first_index}] with another rank "
                f"({response['rank']} and {responses[first_index]['rank']})"
            )
    _check_scores(responses, problems)


def _messages_of(response: Row) -> list[Row]:
    return response["messages"] if response.get("messages") is not None else [response["message"]]


def _check_scores(responses: list[Row], problems: list[str]) -> None:
    scored_indexes = [index for index, response in enumerate(responses) if response.get("score") is not None]
    if not scored_indexes:
        return
    if len(scored_indexes) < len(responses):
        unscored_index = next(index for index in range(len(responses)) if index not in scored_indexes)
        problems.append(f"responses[{unscored_index}].score: is missing; give every response of a row a score, or none")
        return
    for index, response in enumerate(responses):
        worse = [other_response["score"] for other_response in responses if other_response["rank"] > response["rank"]]
        if worse and response["score"] < max(worse):
            problems.append(
                f"responses[{index}].score: is lower than that of a response with a worse rank; "
                "rank 1 is the best, and the best has the highest score"
            )
            return
