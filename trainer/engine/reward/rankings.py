"""Rankings as tokens, as batches of flattened responses, and as pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from trainer.engine.data import TokenizedRow, tokenize_rows
from trainer.engine.template import ChatTemplate
from trainer.errors import TrainerError
from trainer.rows import ChatRow, RankingRow


@dataclass(frozen=True)
class Ranking:
    """A prompt's responses, each a whole conversation as tokens; equal ranks make no pair. `line` is in the file."""

    line: int
    responses: tuple[TokenizedRow, ...]
    ranks: tuple[int, ...]
    scores: tuple[float | None, ...]

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield each pair of numbers of responses, the better first."""
        for better, high in enumerate(self.ranks):
            yield from ((better, worse) for worse, low in enumerate(self.ranks) if high < low)

    def margin(self, better: int, worse: int) -> float:
        """Return by how much the better one's own score is higher, 0 where one of them has none."""
        high, low = self.scores[better], self.scores[worse]
        return 0.0 if high is None or low is None else high - low

    def fitting(self, limit: int) -> Ranking | None:
        """Return the ranking of the responses within `limit` tokens, None where no pair of them is left."""
        kept = [number for number, row in enumerate(self.responses) if len(row.input_ids) <= limit]
        if len({self.ranks[number] for number in kept}) < 2:
            return None
        if len(kept) == len(self.responses):
            return self
        return Ranking(
            self.line,
            tuple(self.responses[number] for number in kept),
            tuple(self.ranks[number] for number in kept),
            tuple(self.scores[number] for number in kept),
        )

    @property
    def tokens(self) -> int:
        """The tokens of all responses, each with its prompt."""
        return sum(len(row.input_ids) for row in self.responses)


def tokenize_rankings(template: ChatTemplate, rows: Sequence[RankingRow], *, param: str) -> list[Ranking]:
    """Render and tokenize prompt and response together. Raises TrainerError (`unsupported_conversation`)."""
    return [_tokenize(template, row, param) for row in rows]


def _tokenize(template: ChatTemplate, row: RankingRow, param: str) -> Ranking:
    for number, response in enumerate(row.responses, start=1):
        if response.message.role != "assistant":
            raise TrainerError(
                f"invalid_{param}",
                f"Response {number} in line {row.line} has the role {response.message.role}: a response is a message "
                "of the assistant.",
                param=param,
            )
    conversations = [
        ChatRow(messages=(*row.input.messages, response.message), tools=row.input.tools, line=row.line)
        for response in row.responses
    ]
    return Ranking(
        line=row.line,
        responses=tuple(tokenize_rows(template, conversations, param=param)),
        ranks=tuple(response.rank for response in row.responses),
        scores=tuple(response.score for response in row.responses),
    )


def collate_sequences(rows: Sequence[TokenizedRow], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest: `input_ids` and `attention_mask`, which comes from lengths."""
    longest = max(len(row.input_ids) for row in rows)
    padding = [longest - len(row.input_ids) for row in rows]
    ids = [[*row.input_ids, *[pad_id] * extra] for row, extra in zip(rows, padding, strict=True)]
    mask = [[1] * (longest - extra) + [0] * extra for extra in padding]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def collate_rankings(rows: Sequence[Ranking], pad_id: int) -> dict[str, torch.Tensor]:
    """Return the responses of all prompts one after the other, and the pairs among them.

    `pairs` [p, 2] are places in the batch, the better first; `weights` [p] are 1 / C with C the pairs of the pair's
    prompt; `margins` [p]; `prompts` is their number.
    """
    pairs: list[tuple[int, int]] = []
    weights: list[float] = []
    margins: list[float] = []
    start = 0
    for row in rows:
        own = list(row.pairs())
        pairs += [(start + better, start + worse) for better, worse in own]
        weights += [1 / len(own)] * len(own)
        margins += [row.margin(better, worse) for better, worse in own]
        start += len(row.responses)
    return {
        **collate_sequences([response for row in rows for response in row.responses], pad_id),
        "pairs": torch.tensor(pairs),
        "weights": torch.tensor(weights),
        "margins": torch.tensor(margins),
        "prompts": torch.tensor(len(rows)),
    }
