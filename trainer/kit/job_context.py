"""What every phase of a run has at hand of its job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainer.contract.job import JobSpec
from trainer.kit.budget import BudgetMeter
from trainer.kit.event_sink import EventSink
from trainer.kit.stop import StopFlag
from trainer.kit.workdir import BASE_FOLDER, START_FOLDER


@dataclass(frozen=True)
class JobContext:
    """What every recipe has at hand. `warn` keeps a sentence for the report and emits it as an event."""

    workdir: Path
    spec: JobSpec
    sink: EventSink
    stop: StopFlag
    warn: Callable[[str], None]

    @cached_property
    def meter(self) -> BudgetMeter:
        """What the job may still use up; its clock starts at the first look."""
        return BudgetMeter(self.spec.budget, self.spec.used_seconds)

    @property
    def base(self) -> Path:
        """The base model's folder; it does not exist if a model is made from scratch."""
        return self.workdir / BASE_FOLDER

    @property
    def start(self) -> Path | None:
        """The folder of the adapter that the job starts from, None if it starts from the base alone."""
        return self.workdir / START_FOLDER if self.spec.start else None
