"""A reward job from its rows to the verified adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch

from trainer.contract.job import DataFile
from trainer.contract.methods.reward import RewardHyperparameters
from trainer.contract.rows import RankingRow
from trainer.engine.adapter_export import VERIFIED_ROWS, Verification
from trainer.engine.data.batches import collate_sequences
from trainer.engine.data.splits import Split, format_lines
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.models.load import load_tokenizer
from trainer.engine.recipe import Recipe
from trainer.engine.reward.model import (
    load_classifier,
    load_reward_model,
    new_reward_model,
    score_sequences,
    separate_padding,
)
from trainer.engine.scoring.compare_outputs import TOLERANCE, compute_logits, require_close
from trainer.engine.scoring.evaluate import SUBSET_TOKENS
from trainer.kit.errors import TrainerError
from trainer.kit.plot_spec import PlotSpec
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure
from trainer.recipes.reward.loop import RewardLoop
from trainer.recipes.reward.losses import pair_losses
from trainer.recipes.reward.rankings import Ranking, collate_rankings, tokenize_rankings


class RewardRecipe(Recipe):
    """Learn a score for whole conversations: the better response of a pair is to have the higher one."""

    plots: ClassVar[tuple[PlotSpec, ...]] = (
        PlotSpec(title="Pair accuracy", y=("pair_accuracy",)),
        PlotSpec(title="Margin between the better and the worse response", y=("margin",)),
    )

    training: Split[Ranking]
    validation: Split[Ranking] | None = None

    @property
    def requested_hyperparameters(self) -> RewardHyperparameters:
        """The hyperparameters as asked for."""
        assert isinstance(self.hyperparameters, RewardHyperparameters)
        return self.hyperparameters

    def read_data(self) -> None:
        """Tokenize each response with its prompt. Responses that do not fit are left out, never cut."""
        self.open_base()
        spec = self.job.spec
        read = [(spec.training, self._tokenize_file(spec.training, "training_file"))]
        if spec.validation:
            read.append((spec.validation, self._tokenize_file(spec.validation, "validation_file")))
        limit = self.set_max_length(max((len(r.input_ids) for row in read[0][1] for r in row.responses), default=0))
        splits = [self._make_split(file, rows, limit) for file, rows in read]
        self.training, self.validation = splits[0], splits[1] if len(splits) > 1 else None
        self.warn_about_dropped_rows("pair of responses")
        ends = {row.input_ids[-1] for split in splits for ranking in split.rows for row in ranking.responses}
        if separate_padding(self.tokenizer, ends):
            self.job.warn(
                f"Rows end with the base's padding token: the reward model pads with {self.tokenizer.pad_token} "
                "instead. Set pad_token_id of the loaded model to that of the tokenizer in the result."
            )

    def row_lengths(self) -> list[int]:
        """Return each ranking's tokens with the padding up to its longest response."""
        return [len(row.responses) * max(len(r.input_ids) for r in row.responses) for row in self.training.rows]

    def preview_parts(self, row: Ranking) -> list[tuple[str, TokenizedRow]]:
        """Return the responses; each is scored at its last token, which is all that the loss looks at."""
        return [
            (f"response of rank {rank}", replace(response, trained=(*[False] * (len(response.input_ids) - 1), True)))
            for rank, response in zip(row.ranks, row.responses, strict=True)
        ]

    def row_tokens(self) -> list[int]:
        """Return each ranking's tokens, padding left out."""
        return [row.tokens for row in self.training.rows]

    def prepare_model(self) -> None:
        """Load the base with a score head, and with the start adapter's weights if the job starts from one."""
        self.settle_hyperparameters()
        base = load_classifier(self.job.base, self.dtype.dtype, self.pad_id, self.resolved.quantization)
        self.model = new_reward_model(base, self.resolved, self.job.start)

    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Return pair accuracy, margin, how often the best response comes first, and loss; prompts are the clusters."""
        rows = self.measured.rows
        if not (full and self.validation):
            rows = rows[:: max(1, sum(row.tokens for row in rows) // SUBSET_TOKENS)]
        flat = score_sequences(self.model, [response for row in rows for response in row.responses], self.pad_id)
        places = iter(flat)
        return ranking_measures(
            rows, [[next(places) for _ in row.responses] for row in rows], self.requested_hyperparameters
        )

    def make_loop(self, progress: TrainingProgress) -> RewardLoop:
        """Return the loop."""
        return RewardLoop(self, progress, self.requested_hyperparameters)

    def verify_result(self, folder: Path) -> Verification:
        """Reload base, adapter and tokenizer as others do, and compare the scores that their classes give.

        Raises TrainerError (`export_mismatch`).
        """
        rows = self.probe_rows()
        pad_id = load_tokenizer(folder).pad_token_id
        assert isinstance(pad_id, int)
        reloaded = load_reward_model(self.job.base, folder, self.dtype.dtype, pad_id)
        batch = {
            name: value.to(reloaded.device)
            for name, value in collate_sequences([row.input_ids for row in rows], pad_id).items()
        }
        ours = torch.tensor(score_sequences(self.model, rows, self.pad_id))
        theirs = compute_logits(reloaded, batch)[:, 0].cpu()
        tolerance = TOLERANCE[self.dtype.dtype] * max(1.0, float(ours.abs().max()))
        difference = require_close("reward model", "scores", [ours], [theirs], tolerance)
        return Verification(rows=len(rows), max_abs_difference=difference, tolerance=tolerance)

    def probe_rows(self) -> Sequence[TokenizedRow]:
        """Return a few responses of different lengths."""
        responses = [response for row in self.measured.rows[:VERIFIED_ROWS] for response in row.responses]
        return responses[: 2 * VERIFIED_ROWS]

    def _tokenize_file(self, file: DataFile, param: str) -> list[Ranking]:
        rows = self.read_file(file, param, RankingRow)
        found = tokenize_rankings(self.template, rows, filename=file.filename, context=self.context, param=param)
        if self.requested_hyperparameters.margin:
            self._check_scores(file, found, param)
        return found

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

    def _make_split(self, file: DataFile, rankings: Sequence[Ranking], limit: int) -> Split[Ranking]:
        fitting = [(row, row.fit_within(limit)) for row in rankings]
        kept = [short for _, short in fitting if short]
        shorter = [(row.line, len(row.responses) - len(short.responses)) for row, short in fitting if short]
        lines = [line for line, missing in shorter if missing]
        if lines:
            self.job.warn(
                f"{file.filename}: {sum(missing for _, missing in shorter)} response(s) are longer than {limit} tokens "
                f"with their prompt and were left out of their rankings, at {format_lines(lines)}."
            )
        tokens = sum(row.tokens for row in kept)
        return Split(
            file=file,
            rows=kept,
            read=len(rankings),
            tokens=tokens,
            trained_tokens=tokens,
            dropped=tuple(row.line for row, short in fitting if not short),
        )


def ranking_measures(
    rows: Sequence[Ranking], scores: Sequence[Sequence[float]], given: RewardHyperparameters
) -> tuple[Measure, ...]:
    """Return the measures of rankings from the scores of their responses."""
    lines = tuple(row.line for row in rows)
    pairs = [list(row.iter_pairs()) for row in rows]
    differences = [
        [own[better] - own[worse] for better, worse in found] for found, own in zip(pairs, scores, strict=True)
    ]
    counts = tuple(float(len(found)) for found in pairs)
    ones = (1.0,) * len(rows)
    return (
        Measure(
            name="pair_accuracy",
            label="pair accuracy",
            better="higher",
            kind="rate",
            lines=lines,
            sums=tuple(sum(1.0 if d > 0 else 0.5 * (d == 0) for d in found) for found in differences),
            weights=counts,
        ),
        Measure(
            name="margin",
            label="margin of the better response",
            better="higher",
            lines=lines,
            sums=tuple(sum(found) for found in differences),
            weights=counts,
        ),
        Measure(
            name="top1",
            label="best response first",
            better="higher",
            kind="rate",
            lines=lines,
            sums=tuple(_top1_share(row, own) for row, own in zip(rows, scores, strict=True)),
            weights=ones,
        ),
        Measure(
            name="loss",
            label="loss",
            unit="nats a prompt",
            better="lower",
            lines=lines,
            sums=tuple(_ranking_loss(row, own, given) for row, own in zip(rows, scores, strict=True)),
            weights=ones,
        ),
    )


def _top1_share(row: Ranking, scores: Sequence[float]) -> float:
    """Return whether the highest score is a best response's; of equally high ones, the part that are."""
    highest = [rank for rank, score in zip(row.ranks, scores, strict=True) if score == max(scores)]
    return sum(rank == min(row.ranks) for rank in highest) / len(highest)


def _ranking_loss(row: Ranking, scores: Sequence[float], given: RewardHyperparameters) -> float:
    batch = collate_rankings([row], 0)
    values = torch.tensor(scores, dtype=torch.float64)
    margins = batch["margins"].double() if given.margin else None
    return float(pair_losses(values, batch["pairs"], margins=margins, centering=given.centering).mean())
