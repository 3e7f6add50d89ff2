"""The parameters of the programmatic rewards that `ppo` and `grpo` may name; the functions are the trainer's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from trainer.frozen import Exact

Word = Annotated[str, Field(min_length=1, max_length=256)]


def _require_visible_text(term: str) -> str:
    if term.isspace():
        raise ValueError("is only white space, which no answer is searched for; name a word or a phrase")
    return term


Term = Annotated[Word, AfterValidator(_require_visible_text)]


class RewardFunction(Exact):
    """A function's parameters; `needs_reference` says that rows must have a `reference`."""

    @property
    def needs_reference(self) -> bool:
        """Whether every row needs a `reference`."""
        return False


class LengthReward(RewardFunction):
    """`length`: nearness to a size, 0 at the target and below elsewhere."""

    target: int = Field(ge=1, le=1000000)
    unit: Literal["characters", "words"] = "characters"


class ContainsReward(RewardFunction):
    """`contains`: the share of these words or phrases in the answer, from 0 to 1."""

    words: list[Word] = Field(min_length=1, max_length=1000)


class LexiconReward(RewardFunction):
    """`lexicon`: the mean weight of these words in the answer, such as a sentiment."""

    weights: dict[Term, Annotated[float, Field(ge=-1000, le=1000)]] = Field(min_length=1, max_length=100000)


class ExactMatchReward(RewardFunction):
    """`exact_match`: 1 if the answer is the row's reference."""

    ignore_case: bool = False

    @property
    def needs_reference(self) -> bool:
        """Rows without a reference have no right answer."""
        return True


class JsonValidReward(RewardFunction):
    """`json_valid`: 1 if the answer is JSON; with `match_reference`, if it equals the reference as a value."""

    match_reference: bool = False

    @property
    def needs_reference(self) -> bool:
        """Whether values are compared."""
        return self.match_reference


REWARD_PARAMETERS: Mapping[str, type[RewardFunction]] = {
    "length": LengthReward,
    "contains": ContainsReward,
    "lexicon": LexiconReward,
    "exact_match": ExactMatchReward,
    "json_valid": JsonValidReward,
}
