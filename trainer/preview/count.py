"""Counts a job before it is created: its recipe reads and settles as in a run, and stops in front of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from trainer.contract.preview import CountedJob, SampleRow, SampleToken
from trainer.engine.data.tokens import TokenizedRow
from trainer.engine.models.load import pick_device
from trainer.engine.recipe import Recipe
from trainer.kit.event_sink import EventSink
from trainer.kit.job_context import JobContext
from trainer.kit.stop import StopFlag
from trainer.kit.workdir import read_spec
from trainer.preview.estimates import estimate_memory, estimate_speed, hollow_model
from trainer.recipes import recipe_for

SHOWN_TOKENS = 1024
# How many tokens before one are decoded with it: what surrounds a token can change its text, such as a space.
_CONTEXT = 6
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER = 8


def count_job(workdir: Path, *, rows: int) -> CountedJob:
    """Return what the job in `workdir` would come to, with `rows` of its rows as tokens. Raises TrainerError."""
    spec = read_spec(workdir)
    warnings: list[str] = []
    sink = EventSink(workdir)
    recipe = recipe_for(JobContext(workdir, spec, sink, StopFlag(), warnings.append))
    recipe.data.read_data()
    recipe.settle_hyperparameters()
    sink.close()
    planned = recipe.job.meter.plan_sentence
    tokens, exact = _count_tokens(recipe)
    model = hollow_model(recipe)
    return CountedJob(
        hyperparameters=recipe.resolved.shown(),
        template_settings=recipe.data.template_settings,
        training=recipe.data.training.preview_file(),
        validation=recipe.data.validation.preview_file() if recipe.data.validation else None,
        warnings=(*warnings, planned) if planned else tuple(warnings),
        steps=recipe.resolved.total_steps,
        tokens=tokens,
        tokens_exact=exact,
        ended_by="budget" if planned else None,
        device="cuda" if pick_device().type == "cuda" else "cpu",
        memory=estimate_memory(recipe, model),
        speed=estimate_speed(recipe, model),
        adapter=recipe.adapter_targets,
        sample=tuple(_sample_rows(recipe, rows)),
    )


def _count_tokens(recipe: Recipe) -> tuple[int, bool]:
    resolved = recipe.resolved
    steps = recipe.step_tokens(resolved)
    if steps is not None:
        return sum(steps), True
    return recipe.most_tokens(), False


def _sample_rows(recipe: Recipe, rows: int) -> list[SampleRow]:
    """Show evenly spaced training rows."""
    found = recipe.data.training.rows
    numbers = [place * len(found) // rows for place in range(rows)] if rows < len(found) else range(len(found))
    return [
        _show_row(recipe.data.tokenizer, part, row)
        for number in numbers
        for part, row in recipe.data.preview_parts(found[number])
    ]


def _show_row(tokenizer: PreTrainedTokenizerBase, part: str, row: TokenizedRow) -> SampleRow:
    ids = row.input_ids[:SHOWN_TOKENS]
    texts = token_texts(tokenizer, ids)
    tokens = tuple(
        SampleToken(id=token, text=text, trained=trained)
        for token, text, trained in zip(ids, texts, row.trained, strict=False)
    )
    return SampleRow(line=row.line, part=part, tokens=tokens, left_out=len(row.input_ids) - len(ids))


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return each token's text, such that all joined are the text of all.

    A character of several tokens is the text of its last one; NUL, which no database takes, is shown as ␀.
    """
    texts: list[str] = []
    shown = 0
    """How many tokens are shown in full."""
    for end in range(1, len(ids) + 1):
        first = max(0, shown - _CONTEXT)
        before, now = _decode_for_display(tokenizer, ids[first:shown]), _decode_for_display(tokenizer, ids[first:end])
        if now.endswith(_UNFINISHED) and end < len(ids) and end - shown < _LONGEST_CHARACTER:
            texts.append("")
            continue
        texts.append(now[len(before) :])
        shown = end
    return texts


def _decode_for_display(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    text = str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return text.replace("\0", "␀")
