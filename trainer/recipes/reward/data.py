"""The rows of a reward job: rankings of responses, and a padding token that ends none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trainer.contract.job import DataFile
from trainer.contract.methods.reward import RewardHyperparameters
from trainer.contract.rows import RankingRow
from trainer.engine.data.row_pipeline import PROBE_ROWS, RowPipeline
from trainer.engine.data.splits import Split, format_lines
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.reward.model import separate_padding
from trainer.engine.scoring.evaluate import SUBSET_TOKENS
from trainer.kit.errors import TrainerError
from trainer.recipes.reward.rankings import Ranking, tokenize_rankings


class RankingData(RowPipeline[RankingRow, list[Ranking], Ranking]):
    """Rankings: each response with its prompt. Responses that do not fit are left out, never cut."""

    row = RankingRow
    needed = "pair of responses"
    hyperparameters: RewardHyperparameters

    def read_data(self) -> None:
        """Read the rankings, and choose a padding token that ends none of their responses."""
        super().read_data()
        # A reward model answers nothing, so that the rows are not needed beside their tokens.
        self.source = ()
        splits = filter(None, (self.training, self.validation))
        ends = {row.input_ids[-1] for split in splits for ranking in split.rows for row in ranking.responses}
        if separate_padding(self.tokenizer, ends):
            self.job.warn(
                f"Rows end with the base's padding token: the reward model pads with {self.tokenizer.pad_token} "
                "instead. Set pad_token_id of the loaded model to that of the tokenizer in the result."
            )

    def tokenize_rows(self, file: DataFile, rows: Sequence[RankingRow], param: str) -> list[Ranking]:
        """Tokenize each response with its prompt. Raises TrainerError if a margin has no scores to come from."""
        rankings = tokenize_rankings(
            self.open_renderer(file, param), rows, filename=file.filename, context=self.context, param=param
        )
        if self.hyperparameters.margin:
            self._check_scores(file, rankings, param)
        return rankings

    def sequence_lengths(self, tokens: list[Ranking]) -> list[int]:
        """Return the tokens of each response with its prompt."""
        return [len(response.input_ids) for ranking in tokens for response in ranking.responses]

    def fit_rows(self, file: DataFile, rows: Sequence[RankingRow], tokens: list[Ranking]) -> Split[Ranking]:
        """Leave out the responses that are too long, and drop rankings that have no pair then."""
        fitting = [(row, row.fit_within(self.max_length)) for row in tokens]
        kept = [short for _, short in fitting if short]
        shorter = [(row.line, len(row.responses) - len(short.responses)) for row, short in fitting if short]
        lines = [line for line, missing in shorter if missing]
        if lines:
            self.job.warn(
                f"{file.filename}: {sum(missing for _, missing in shorter)} response(s) are longer than "
                f"{self.max_length} tokens with their prompt and were left out of their rankings, at "
                f"{format_lines(lines)}."
            )
        size = sum(row.tokens for row in kept)
        return Split(
            file=file,
            rows=kept,
            read=len(rows),
            tokens=size,
            trained_tokens=size,
            dropped=tuple(row.line for row, short in fitting if not short),
        )

    def subset_rows(self, rows: Sequence[Ranking]) -> Sequence[Ranking]:
        """Return rankings with about 2048 tokens together."""
        return rows[:: max(1, sum(row.tokens for row in rows) // SUBSET_TOKENS)]

    def row_lengths(self) -> list[int]:
        """Return each ranking's tokens with the padding up to its longest response."""
        return [len(row.responses) * max(len(r.input_ids) for r in row.responses) for row in self.training.rows]

    def row_tokens(self) -> list[int]:
        """Return each ranking's tokens, padding left out."""
        return [row.tokens for row in self.training.rows]

    def preview_parts(self, row: Ranking) -> list[tuple[str, TokenizedRow]]:
        """Return the responses; each is scored at its last token, which is all that the loss looks at."""
        return [
            (f"response of rank {rank}", replace(response, trained=(*[False] * (len(response.input_ids) - 1), True)))
            for rank, response in zip(row.ranks, row.responses, strict=True)
        ]

    def probe_rows(self) -> Sequence[TokenizedRow]:
        """Return a few responses of different lengths."""
        responses = [response for row in self.measured.rows[:PROBE_ROWS] for response in row.responses]
        return responses[: 2 * PROBE_ROWS]

    def _check_scores(self, file: DataFile, rows: Sequence[Ranking], param: str) -> None:
        """Raise TrainerError if a margin is asked for and no ranking has scores; warn if some have none."""
        without = [row.line for row in rows if None in row.scores]
        if without and len(without) == len(rows):
            raise TrainerError(
                f"invalid_{param}",
                f"{file.filename}: margin needs each response's own score, and no ranking has one for every response. "
                "Add score to the responses, or set margin to false.",
                param=param,
            )
        if without:
            self.job.warn(
                f"{file.filename}: {len(without)} ranking(s) lack a response's score, at {format_lines(without)}: "
                "the margin of those pairs is 0."
            )
