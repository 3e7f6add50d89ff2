"""What becomes of rows of every kind on the chat templates of the installed TRL, and on templates of every shape."""

from __future__ import annotations

import argparse
from collections import Counter

from tests.benchmarks.measuring import Grid, Outcome, output_options, show
from tests.fixtures.chat_templates import ROWS, TRL_TEMPLATES, Verdict, judge_template, open_template
from tests.fixtures.template_shapes import SHAPES

OUTCOMES = ("right", "own sequences", "refused", "wrong")


def options_parser() -> argparse.ArgumentParser:
    """Return the parser of the benchmark's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.template_table", description=__doc__)
    output_options(parser)
    return parser


def benchmark(options: argparse.Namespace) -> Outcome:
    """Render every row with every template and judge the tokens."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in sorted(TRL_TEMPLATES.glob("*.jinja"))}
    real = {name: judge_template(source) for name, source in sources.items()}
    own = {name: judge_template(source) for name, source in SHAPES.items()}
    settings = {name: open_template(source).settings for name, source in (*sources.items(), *SHAPES.items())}
    grids = (
        _list_templates(
            f"The {len(real)} templates of the installed `trl`, rows by what becomes of them", real, settings
        ),
        _list_templates(f"{len(own)} shapes of templates", own, settings),
        _list_kinds({**real, **{f"shape {name}": verdicts for name, verdicts in own.items()}}),
    )
    refused = Counter(
        f"`{kind}`: {verdict.reason}"
        for verdicts in (*real.values(), *own.values())
        for kind, verdict in verdicts.items()
        if verdict.outcome == "refused"
    )
    notes = (
        "right: one sequence; each trained turn stands behind the very tokens that chat sees, ends with a token that "
        "generation stops at, and what is trained are the assistant's words, all of them and no others",
        "own sequences: the same in several sequences, because the template renders earlier turns otherwise once later "
        "ones follow, or because the turn's end had to be appended",
        *(f"refused {count} times, {reason}" for reason, count in sorted(refused.items())),
    )
    data = {
        name: {kind: [verdict.outcome, verdict.reason] for kind, verdict in verdicts.items()}
        for name, verdicts in (*real.items(), *own.items())
    }
    return Outcome(grids, notes, data)


def _list_templates(title: str, judged: dict[str, dict[str, Verdict]], settings: dict[str, dict[str, object]]) -> Grid:
    rows: list[tuple[str, ...]] = []
    for name, verdicts in judged.items():
        counts = Counter(verdict.outcome for verdict in verdicts.values())
        switch = ", ".join(f"{key}={value}" for key, value in settings[name].items())
        rows.append((name, *(str(counts[outcome]) for outcome in OUTCOMES), switch))
    totals = Counter(verdict.outcome for verdicts in judged.values() for verdict in verdicts.values())
    rows.append(("all", *(str(totals[outcome]) for outcome in OUTCOMES), ""))
    return Grid(title, ("template", *OUTCOMES, "setting"), tuple(rows))


def _list_kinds(judged: dict[str, dict[str, Verdict]]) -> Grid:
    rows: list[tuple[str, ...]] = []
    for kind in ROWS:
        counts = Counter(verdicts[kind].outcome for verdicts in judged.values())
        rows.append((kind, *(str(counts[outcome]) for outcome in OUTCOMES)))
    return Grid("The kinds of rows, on all of these templates", ("row", *OUTCOMES), tuple(rows))


if __name__ == "__main__":
    parsed_options = options_parser().parse_args()
    show(benchmark(parsed_options), parsed_options)
