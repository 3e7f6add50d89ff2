"""Writing `report.json` and `report.html`: one self-contained page that asks nothing of the network."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trainer.contract.result import REPORT_HTML, REPORT_JSON
from trainer.kit.statistics import Estimate
from trainer.report.model import Report, perplexity_of_loss
from trainer.report.plots import all_plots


def write_report(workdir: Path, report: Report) -> None:
    """Write both forms below `workdir`; their folder must exist."""
    _write_durably(workdir / REPORT_JSON, report.model_dump_json(indent=1))
    _write_durably(workdir / REPORT_HTML, render_html(report))


def render_html(report: Report) -> str:
    """Return the page. Everything that comes from data or names is escaped by the template engine."""
    environment: Any = Environment(
        loader=PackageLoader("trainer", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=_format_number,
        interval=_format_interval,
        percent=_format_percent,
        percent_interval=_format_percent_interval,
        duration=_format_duration,
    )
    return environment.get_template("report.html.jinja").render(
        report=report,
        created=datetime.fromtimestamp(report.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        plots=[Markup(plot) for plot in all_plots(report)],  # noqa: S704 - drawn here from numbers only
        perplexity_interval=_format_perplexity_interval,
        total_seconds=sum(report.seconds.values()),
    )


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _format_number(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if 0 < abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:.3f}"


def _format_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"{_format_number(estimate.low)} to {_format_number(estimate.high)}"


def _format_percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _format_percent_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"{_format_percent(estimate.low)} to {_format_percent(estimate.high)}"


def _format_perplexity_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"{_format_number(perplexity_of_loss(estimate.low))} to {_format_number(perplexity_of_loss(estimate.high))}"


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)} min {rest:.0f} s" if minutes else f"{rest:.1f} s"
