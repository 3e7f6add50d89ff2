"""Rankings as tokens, as batches of flattened responses, and as pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from trainer.contract.rows import ChatRow, RankingRow
from trainer.engine.data.batches import collate_sequences
from trainer.engine.data.row_renderer import RowRenderer
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.preferences.pairs import prompt_length
from trainer.engine.reward.last_turn import last_turn
from trainer.kit.errors import TrainerError
from trainer.kit.row_files import SHOWN_PROBLEMS


@dataclass(frozen=True)
class Ranking:
    """A prompt's responses, each a whole conversation as tokens; equal ranks make no pair. `line` is in the file."""

    line: int
    responses: tuple[TokenizedRow, ...]
    ranks: tuple[int, ...]
    scores: tuple[float | None, ...]

    def iter_pairs(self) -> Iterator[tuple[int, int]]:
        """Yield each pair of numbers of responses, the better first."""
        for better, high in enumerate(self.ranks):
            yield from ((better, worse) for worse, low in enumerate(self.ranks) if high < low)

    def score_margin(self, better: int, worse: int) -> float:
        """Return by how much the better one's own score is higher, 0 if one of them has none."""
        high, low = self.scores[better], self.scores[worse]
        return 0.0 if high is None or low is None else high - low

    def fit_within(self, limit: int) -> Ranking | None:
        """Return the ranking of the responses within `limit` tokens, None if no pair of them is left."""
        kept = [number for number, row in enumerate(self.responses) if len(row.input_ids) <= limit]
        # Equal ranks make no pair, and there would be nothing to learn.
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


def tokenize_rankings(
    renderer: RowRenderer, rows: Sequence[RankingRow], *, filename: str, context: int, param: str
) -> list[Ranking]:
    """Render and tokenize prompt and response together.

    Raises TrainerError (`unsupported_conversation`; `invalid_training_file`, … if a prompt leaves no room for a
    response in the model's context), naming the lines.
    """
    rankings = renderer.render_rows(rows, lambda row: _tokenize_ranking(renderer, row))
    too_long = [row.line for row in rankings if min(map(prompt_length, row.responses)) >= context]
    _refuse_rows(
        [
            f"line {line}: the prompt leaves no room for a response in the context of {context} tokens"
            for line in too_long
        ],
        filename,
        param,
    )
    return rankings


def _refuse_rows(problems: Sequence[str], filename: str, param: str) -> None:
    if problems:
        rest = len(problems) - SHOWN_PROBLEMS
        more = f"; and {rest} more" if rest > 0 else ""
        shown = "; ".join(problems[:SHOWN_PROBLEMS])
        raise TrainerError(
            f"invalid_{param}", f"{filename} has {len(problems)} line(s) to mend: {shown}{more}.", param=param
        )


def _tokenize_ranking(renderer: RowRenderer, row: RankingRow) -> Ranking:
    conversations = [
        last_turn(ChatRow(messages=(*row.input.messages, *response.messages), tools=row.input.tools, line=row.line))
        for response in row.responses
    ]
    return Ranking(
        line=row.line,
        responses=tuple(map(renderer.encode_sequence, conversations)),
        ranks=tuple(response.rank for response in row.responses),
        scores=tuple(response.score for response in row.responses),
    )


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
        own = list(row.iter_pairs())
        pairs += [(start + better, start + worse) for better, worse in own]
        weights += [1 / len(own)] * len(own)
        margins += [row.score_margin(better, worse) for better, worse in own]
        start += len(row.responses)
    return {
        **collate_sequences([response.input_ids for row in rows for response in row.responses], pad_id),
        "pairs": torch.tensor(pairs),
        "weights": torch.tensor(weights),
        "margins": torch.tensor(margins),
        "prompts": torch.tensor(len(rows)),
    }
