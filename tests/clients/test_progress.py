from __future__ import annotations

import io
import re
from typing import Any

from rich.console import Console

from burnish._text import printable_text
from burnish.progress import Curve, JobProgress, draw_sparkline, format_duration
from burnish.schemas import JobEvent
from tests.clients.scripted import an_event


def step(number: int, total: int = 40, **more: Any) -> JobEvent:
    data = {
        "step": number,
        "total_steps": total,
        "train_loss": 3.0 - number / 20,
        "tokens_per_second": 1712.4,
        "seconds_left": 65.0,
        **more,
    }
    return JobEvent.model_validate(an_event(number, type="metrics", data=data))


def shown(events: list[JobEvent], *, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=140, _environ={})
    with JobProgress(console=console) as progress:
        for event in events:
            progress(event)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def test_plain_lines_without_a_terminal() -> None:
    message = JobEvent.model_validate(an_event(0, message="开始 [bold]训练[/bold]\x1b[2J"))
    text = shown([message, *(step(number) for number in range(1, 41))], terminal=False)
    lines = text.splitlines()
    assert lines[0] == "开始 [bold]训练[/bold]\N{REPLACEMENT CHARACTER}[2J"
    assert lines[1] == "step 2/40 · loss 2.900 · 1,712 tokens/s · 1:05 left"
    assert len(lines) == 21
    assert lines[-1].startswith("step 40/40")


def test_a_live_bar_on_a_terminal() -> None:
    text = shown([step(1), step(20), step(40)], terminal=True)
    assert "step 40/40 · loss 1.000 · 1,712 tokens/s · 1:05 left" in text
    assert "  loss █▅▁ 1.000, lowest 1.000 at step 40" in text
    assert "validation loss" not in text


def test_a_live_curve_of_the_validation() -> None:
    values = [(0, 4.0, "base"), (10, 3.0, "tuned"), (20, 2.0, "tuned"), (30, 2.5, "tuned")]
    events = [
        JobEvent.model_validate(
            an_event(100 + number, type="metrics", data={"step": number, "valid_loss": loss, "model": model})
        )
        for number, loss, model in values
    ]
    text = shown([step(1), *events], terminal=True)
    assert "  validation loss █▁▅ 2.500, lowest 2.000 at step 20" in text
    assert "step 30: validation loss 2.500 (tuned)" in text


def test_a_curve_counts_a_repeated_step_once() -> None:
    curve = Curve()
    for number, value in [(1, 3.0), (2, 2.0), (3, 1.0), (2, 2.5), (3, float("nan"))]:
        curve.add_value(number, value)
    assert curve.values[:2] == [3.0, 2.5]
    assert str(curve) == "nan, lowest 2.500 at step 2"
    lost = Curve()
    lost.add_value(1, float("nan"))
    assert str(lost) == "nan"


def test_validation_of_base_and_tuned() -> None:
    base = {"step": 0, "full_valid_loss": 2.5, "full_valid_mean_token_accuracy": 0.5, "model": "base"}
    tuned = {"step": 40, "valid_loss": 1.25, "model": "tuned"}
    events = [JobEvent.model_validate(an_event(1, type="metrics", data=data)) for data in (base, tuned)]
    assert shown(events, terminal=False).splitlines() == [
        "step 0: validation loss 2.500, token accuracy 50.0% (base)",
        "step 40: validation loss 1.250 (tuned)",
    ]


def test_a_methods_own_measures() -> None:
    data = {
        "step": 4,
        "valid_loss": None,
        "valid_reward": 0.5,
        "valid_kl": 1.0,
        "valid_response_length": 7.0,
        "valid_x": 1,
    }
    event = JobEvent.model_validate(an_event(1, type="metrics", data=data | {"model": "tuned"}))
    line = "step 4: validation reward 0.500, kl 1.000, response length 7.000 (tuned)"
    assert shown([event], terminal=False).splitlines() == [line]


def test_numbers_that_are_missing() -> None:
    data = {"step": 1, "train_loss": 2.0, "tokens_per_second": None, "total_steps": None}
    event = JobEvent.model_validate(an_event(1, type="metrics", data=data))
    assert shown([event], terminal=False) == "step 1 · loss 2.000\n"


def test_sparkline() -> None:
    assert draw_sparkline([]) == ""
    assert draw_sparkline([2.0]) == "▁"
    assert draw_sparkline([8, 7, 6, 5, 4, 3, 2, 1]) == "█▇▆▅▄▃▂▁"
    assert draw_sparkline([1, float("nan"), 8, float("inf")]) == "▁█"
    assert len(draw_sparkline(list(range(1000)))) == 24


def test_duration_and_printable() -> None:
    assert [format_duration(seconds) for seconds in (0, 65, 7265)] == ["0:00", "1:05", "2:01:05"]
    assert printable_text("好\x1b[31m\r\n") == "好\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}\n"
